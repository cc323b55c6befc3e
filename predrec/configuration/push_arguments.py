"""Arguments of `push_to_hub`."""

from dataclasses import dataclass, field


@dataclass
class PushArguments:
    """What is published where.

    Args:
        repo_id (`str`): `owner/name` on the Hub, or `name` among one's own.
        private (`bool`, *optional*): Make a new repository private; the owner's default when absent.
        dry_run (`bool`, defaults to `False`): Assemble and check the folder, and stop there.
        output_dir (`str`, *optional*): Folder to assemble in; the source's name and `-hub` when absent.
        license (`str`, *optional*): Identifier for the card's metadata, such as `apache-2.0`.
        update (`bool`, defaults to `False`): Add a commit to a repository that already has files.
        commit_message (`str`): Of the commit.
    """

    repo_id: str = field(metadata={"help": "owner/name on the Hub."})
    private: bool | None = field(default=None, metadata={"help": "Make a new repository private."})
    dry_run: bool = field(default=False, metadata={"help": "Assemble and check the folder, and stop there."})
    output_dir: str | None = field(default=None, metadata={"help": "Folder to assemble in (SOURCE-hub)."})
    license: str | None = field(default=None, metadata={"help": "Licence for the card, such as apache-2.0."})
    update: bool = field(default=False, metadata={"help": "Add a commit to a repository that already has files."})
    commit_message: str = field(default="Upload the encoder", metadata={"help": "Message of the commit."})
