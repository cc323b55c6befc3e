// Browsers start no worker from a file: the search of a site that is opened from disk runs in a hidden frame instead.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      this.ready = new Promise(resolve => {
        window.addEventListener("message", event => {
          if (event.source !== frame.contentWindow) return
          if (event.data === "ready") return resolve()
          this.dispatchEvent(new MessageEvent("message", { data: event.data }))
        })
      })
      frame.srcdoc = `<script>
        window.postMessage = data => parent.postMessage(data, "*")
        window.importScripts = async (...urls) => {
          for (const src of urls)
            await new Promise(done => document.head.append(
              Object.assign(document.createElement("script"), { src, onload: done })))
        }
      <\/script><script src="${url}" onload="postMessage('ready')"><\/script>`
      this.frame = frame
      document.body.append(frame)
    }
    postMessage(data) {
      // The frame's own postMessage leads here, so the message is handed to its listeners.
      this.ready.then(() => {
        const { contentWindow } = this.frame
        contentWindow.dispatchEvent(new contentWindow.MessageEvent("message", { data }))
      })
    }
    terminate() { this.frame.remove() }
  }
  window.Worker = window.IFrameWorker
}
