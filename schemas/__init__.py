"""The records that cross a border: Arrow schemas, configuration sections, commit records, the ledger."""
