"""The document family: spaces and the documents in them."""

from __future__ import annotations

from matih_ray.model.cdm.base import COUNT, FLAG, TEXT, TIME, CdmColumn, CdmModel

SPACE = CdmModel(
    "cdm.doc.space",
    "A container of documents: a wiki's space, a drive.",
    (
        CdmColumn("space_key", TEXT, "Short key for people"),
        CdmColumn("name", TEXT, "Name"),
        CdmColumn("description", TEXT, "Description"),
        CdmColumn("space_type", TEXT, "The source's kind of space"),
        CdmColumn("status", TEXT, "The source's status, such as `current` or `archived`"),
        CdmColumn("owner_id", TEXT, "The source's id of its owner or author"),
        CdmColumn("created_at", TIME, "When it was made"),
        CdmColumn("updated_at", TIME, "When it was last changed"),
        CdmColumn("url", TEXT, "Address for people"),
    ),
)

ITEM = CdmModel(
    "cdm.doc.item",
    "A document: page, blog post, file, folder.",
    (
        CdmColumn("space_cdm_id", TEXT, "Space that it is in"),
        CdmColumn("parent_item_cdm_id", TEXT, "Item that it is below; NULL at the top"),
        CdmColumn("title", TEXT, "Title or file name"),
        CdmColumn("item_type", TEXT, "`page`, `file`, `folder`, `package` or `other`"),
        CdmColumn("status", TEXT, "The source's status, such as `current` or `trashed`"),
        CdmColumn("mime_type", TEXT, "Media type of a file"),
        CdmColumn("path", TEXT, "Path from the space's root"),
        CdmColumn("size_bytes", COUNT, "Size of a file"),
        CdmColumn("version", TEXT, "The source's name of the present revision"),
        CdmColumn("author_id", TEXT, "The source's id of who made it"),
        CdmColumn("editor_id", TEXT, "The source's id of who changed it last"),
        CdmColumn("body", TEXT, "Content in the source's markup, where it was read"),
        CdmColumn("content_hash", TEXT, "The source's hash of a file's content"),
        CdmColumn("created_at", TIME, "When it was made"),
        CdmColumn("updated_at", TIME, "When it was last changed"),
        CdmColumn("url", TEXT, "Address for people"),
    ),
)

REVISION = CdmModel(
    "cdm.doc.revision",
    "One version of a document.",
    (
        CdmColumn("item_cdm_id", TEXT, "Document"),
        CdmColumn("version", TEXT, "The source's name of the version"),
        CdmColumn("title", TEXT, "Title in this version"),
        CdmColumn("author_id", TEXT, "The source's id of who made it"),
        CdmColumn("message", TEXT, "Why it was made"),
        CdmColumn("is_minor", FLAG, "Nobody was notified"),
        CdmColumn("body", TEXT, "Content of this version, where it was read"),
        CdmColumn("created_at", TIME, "When it was made"),
    ),
)

LINK = CdmModel(
    "cdm.doc.link",
    "A link in a document.",
    (
        CdmColumn("from_item_cdm_id", TEXT, "Document that holds the link"),
        CdmColumn("to_item_cdm_id", TEXT, "Document that it leads to, if that is known"),
        CdmColumn("to_url", TEXT, "Address that it leads to, if that is outside"),
        CdmColumn("to_space_key", TEXT, "Key of the target's space, as written"),
        CdmColumn("to_title", TEXT, "Title of the target, as written"),
        CdmColumn("to_attachment", TEXT, "File name of an attachment that it leads to"),
        CdmColumn("to_user_id", TEXT, "The source's id of a user that it leads to"),
        CdmColumn("anchor", TEXT, "Place in the target"),
        CdmColumn("link_type", TEXT, "Kind, such as `page`, `attachment` or `url`"),
        CdmColumn("text", TEXT, "Text of the first link to this target"),
        CdmColumn("occurrences", COUNT, "Links of the document to this target"),
    ),
)

DOC_MODELS = (SPACE, ITEM, REVISION, LINK)
