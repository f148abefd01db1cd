"""Print the page ``docs/tables.md``."""

from mlops_assets.tables import tables_page

print(tables_page(), end="")
