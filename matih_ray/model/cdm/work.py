"""The work family: projects and what is done in them."""

from __future__ import annotations

from matih_ray.model.cdm.base import COUNT, DAY, FLAG, TEXT, TEXTS, TIME, CdmColumn, CdmModel

PROJECT = CdmModel(
    "cdm.work.project",
    "A project: the container of work items.",
    (
        CdmColumn("project_key", TEXT, "Short key that item keys begin with"),
        CdmColumn("name", TEXT, "Name"),
        CdmColumn("description", TEXT, "Description, as plain text or the source's markup"),
        CdmColumn("project_type", TEXT, "The source's kind of project"),
        CdmColumn("category", TEXT, "Category that the source files it under"),
        CdmColumn("lead_cdm_id", TEXT, "User who leads it"),
        CdmColumn("url", TEXT, "Address for people"),
        CdmColumn("is_private", FLAG, "Only its members see it"),
        CdmColumn("is_archived", FLAG, "Kept, and no longer worked on"),
    ),
)

ITEM = CdmModel(
    "cdm.work.item",
    "A piece of work: issue, task, story, bug, epic.",
    (
        CdmColumn("project_cdm_id", TEXT, "Project that it is in"),
        CdmColumn("item_key", TEXT, "Key for people, such as `ABC-12`; changes when it moves"),
        CdmColumn("item_type", TEXT, "Kind, such as Bug or Story"),
        CdmColumn("summary", TEXT, "Title"),
        CdmColumn("description", TEXT, "Description, as plain text or the source's markup"),
        CdmColumn("status", TEXT, "Status by its name in the source"),
        CdmColumn("status_category", TEXT, "`new`, `indeterminate` or `done`, as far as told"),
        CdmColumn("priority", TEXT, "Priority by its name"),
        CdmColumn("resolution", TEXT, "How it was resolved"),
        CdmColumn("assignee_cdm_id", TEXT, "User who works on it"),
        CdmColumn("reporter_cdm_id", TEXT, "User who reported it"),
        CdmColumn("creator_cdm_id", TEXT, "User who entered it"),
        CdmColumn("parent_cdm_id", TEXT, "Item that it is a part of"),
        CdmColumn("sprint_cdm_ids", TEXTS, "Sprints that it is or was in"),
        CdmColumn("labels", TEXTS, "Labels"),
        CdmColumn("components", TEXTS, "Components by their names"),
        CdmColumn("fix_versions", TEXTS, "Releases that it is planned for, by their names"),
        CdmColumn("affects_versions", TEXTS, "Releases that it is about, by their names"),
        CdmColumn("original_estimate_s", COUNT, "First estimate in seconds"),
        CdmColumn("remaining_estimate_s", COUNT, "Work that is left, in seconds"),
        CdmColumn("time_spent_s", COUNT, "Logged work in seconds"),
        CdmColumn("due_on", DAY, "Day that it is due"),
        CdmColumn("created_at", TIME, "When it was entered"),
        CdmColumn("updated_at", TIME, "When it was last changed"),
        CdmColumn("resolved_at", TIME, "When it was resolved"),
        CdmColumn("url", TEXT, "Address for people"),
    ),
)

USER = CdmModel(
    "cdm.work.user",
    "A person or an account that acts in the source.",
    (
        CdmColumn("display_name", TEXT, "Name for people"),
        CdmColumn("email", TEXT, "Address, if the source shows it"),
        CdmColumn("account_type", TEXT, "The source's kind of account"),
        CdmColumn("is_active", FLAG, "May log in"),
        CdmColumn("time_zone", TEXT, "Time zone, as an IANA name"),
    ),
)

COMMENT = CdmModel(
    "cdm.work.comment",
    "A comment on a work item.",
    (
        CdmColumn("item_cdm_id", TEXT, "Item that it is about"),
        CdmColumn("author_cdm_id", TEXT, "User who wrote it"),
        CdmColumn("editor_cdm_id", TEXT, "User who changed it last"),
        CdmColumn("body", TEXT, "Text, plain or in the source's markup"),
        CdmColumn("is_internal", FLAG, "Not shown to customers"),
        CdmColumn("created_at", TIME, "When it was written"),
        CdmColumn("updated_at", TIME, "When it was last changed"),
    ),
)

WORKLOG = CdmModel(
    "cdm.work.worklog",
    "Time that somebody has worked on an item.",
    (
        CdmColumn("item_cdm_id", TEXT, "Item that was worked on"),
        CdmColumn("author_cdm_id", TEXT, "User who worked"),
        CdmColumn("comment", TEXT, "What was done"),
        CdmColumn("started_at", TIME, "When the work began"),
        CdmColumn("time_spent_s", COUNT, "How long it took, in seconds"),
        CdmColumn("created_at", TIME, "When it was logged"),
        CdmColumn("updated_at", TIME, "When the log was last changed"),
    ),
)

STATUS_CHANGE = CdmModel(
    "cdm.work.status_change",
    "One change of one field in an item's history: moves in the workflow, and all others.",
    (
        CdmColumn("item_cdm_id", TEXT, "Item that changed"),
        CdmColumn("author_cdm_id", TEXT, "User who changed it"),
        CdmColumn("field", TEXT, "Field that changed, by its name"),
        CdmColumn("field_id", TEXT, "The source's id of the field; `status` for the workflow"),
        CdmColumn("from_id", TEXT, "The source's id of the old value"),
        CdmColumn("from_value", TEXT, "Old value for people"),
        CdmColumn("to_id", TEXT, "The source's id of the new value"),
        CdmColumn("to_value", TEXT, "New value for people"),
        CdmColumn("changed_at", TIME, "When it changed"),
    ),
)

LINK = CdmModel(
    "cdm.work.link",
    "A relation between two items, read from `from` to `to`.",
    (
        CdmColumn("from_item_cdm_id", TEXT, "Item that the relation starts at"),
        CdmColumn("to_item_cdm_id", TEXT, "Item that it leads to"),
        CdmColumn("link_type", TEXT, "Kind, such as Blocks"),
        CdmColumn("phrase", TEXT, "How it reads from `from`, such as `blocks`"),
    ),
)

SPRINT = CdmModel(
    "cdm.work.sprint",
    "A period of work on a board.",
    (
        CdmColumn("name", TEXT, "Name"),
        CdmColumn("state", TEXT, "`future`, `active` or `closed`"),
        CdmColumn("goal", TEXT, "Goal"),
        CdmColumn("board_id", TEXT, "The source's id of its board"),
        CdmColumn("created_at", TIME, "When it was planned"),
        CdmColumn("started_at", TIME, "When it starts"),
        CdmColumn("ended_at", TIME, "When it is planned to end"),
        CdmColumn("completed_at", TIME, "When it was closed"),
    ),
)

WORK_MODELS = (PROJECT, ITEM, USER, COMMENT, WORKLOG, STATUS_CHANGE, LINK, SPRINT)
