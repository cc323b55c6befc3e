"""A database schema in the form of Spider's `tables.json`, of our own."""

LIBRARY = {
    "db_id": "library",
    "table_names_original": ["Author", "Book", "Loan", "sqlite_sequence"],
    "column_names_original": [
        [-1, "*"],
        [0, "Author_ID"],
        [0, "Name"],
        [0, "Age"],
        [0, "Born"],
        [0, "Home Town"],
        [1, "Book_ID"],
        [1, "Title"],
        [1, "Author_ID"],
        [1, "Price"],
        [1, "Pages"],
        [1, "Lent"],
        [2, "Book_ID"],
        [2, "Reader"],
        [2, "Day"],
        [3, "name"],
    ],
    "column_types": [
        *("text", "number", "text", "number", "time", "text", "number", "text", "number"),
        *("number", "text", "boolean", "number", "text", "time", "text"),
    ],
    "primary_keys": [1, 6],
    "foreign_keys": [[8, 1], [12, 6]],
}
