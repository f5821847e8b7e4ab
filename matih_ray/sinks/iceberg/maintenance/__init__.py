"""Care for tables that are written all day: fewer and larger files, short metadata, no rubbish.

`table_care` does it all for one table: small files are compacted (`compaction` chooses, `rewriting`
does the work in any process, `replacing` commits), manifests are merged by the same commit
(`replacing`), snapshots expire (`expiry`) and files that nothing names are removed (`orphans`).

Everything here runs beside writers. A maintenance commit asserts the head of main like every
commit of the sink, and replaces only files that are still there; a writer that meets one finds that
the head has moved and goes on from the new one. No marker is touched: markers are in table
properties, which outlive snapshots.

May import what the sink's own modules import. Why not a library: PyIceberg 0.12 can only take
snapshots out of the metadata; it neither compacts, nor merges manifests without appending, nor
deletes files.
"""
