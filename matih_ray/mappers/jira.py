"""Jira to `cdm.work`. Raw columns: `sources.jira.schemas`.

Projects, users and sprints have no version: their `_source_version` is when they were read, and the
same project would be another version in each run.
"""

from __future__ import annotations

from matih_ray.mappers.expressions import Column, Not, Reference, References
from matih_ray.mappers.registry import CdmMapper, MapperFamily, register_cdm_mapper
from matih_ray.model.cdm.work import (
    COMMENT,
    ITEM,
    LINK,
    PROJECT,
    SPRINT,
    STATUS_CHANGE,
    USER,
    WORKLOG,
)


class JiraMappers(MapperFamily):
    """Projects, issues and what belongs to them."""


register_cdm_mapper(
    JiraMappers,
    "jira.projects",
    CdmMapper(
        PROJECT,
        {
            "project_key": Column("key"),
            "name": Column("name"),
            "description": Column("description"),
            "project_type": Column("project_type"),
            "category": Column("category"),
            "lead_cdm_id": Reference(USER, "lead_id"),
            "url": Column("url"),
            "is_private": Column("is_private"),
            "is_archived": Column("is_archived"),
        },
        source_version=None,
    ),
)

register_cdm_mapper(
    JiraMappers,
    "jira.issues",
    CdmMapper(
        ITEM,
        {
            "project_cdm_id": Reference(PROJECT, "project_id"),
            "item_key": Column("key"),
            "item_type": Column("issue_type"),
            "summary": Column("summary"),
            "description": Column("description"),
            "status": Column("status"),
            "status_category": Column("status_category"),
            "priority": Column("priority"),
            "resolution": Column("resolution"),
            "assignee_cdm_id": Reference(USER, "assignee_id"),
            "reporter_cdm_id": Reference(USER, "reporter_id"),
            "creator_cdm_id": Reference(USER, "creator_id"),
            "parent_cdm_id": Reference(ITEM, "parent_id"),
            "sprint_cdm_ids": References(SPRINT, "sprint_ids"),
            "labels": Column("labels"),
            "components": Column("components"),
            "fix_versions": Column("fix_versions"),
            "affects_versions": Column("affects_versions"),
            "original_estimate_s": Column("original_estimate_s"),
            "remaining_estimate_s": Column("remaining_estimate_s"),
            "time_spent_s": Column("time_spent_s"),
            "due_on": Column("due"),
            "created_at": Column("created"),
            "updated_at": Column("updated"),
            "resolved_at": Column("resolved"),
            "url": Column("url"),
        },
    ),
)

register_cdm_mapper(
    JiraMappers,
    "jira.users",
    CdmMapper(
        USER,
        {
            "display_name": Column("display_name"),
            "email": Column("email"),
            "account_type": Column("account_type"),
            "is_active": Column("is_active"),
            "time_zone": Column("time_zone"),
        },
        source_version=None,
    ),
)

register_cdm_mapper(
    JiraMappers,
    "jira.comments",
    CdmMapper(
        COMMENT,
        {
            "item_cdm_id": Reference(ITEM, "issue_id"),
            "author_cdm_id": Reference(USER, "author_id"),
            "editor_cdm_id": Reference(USER, "update_author_id"),
            "body": Column("body"),
            "is_internal": Not("is_public"),
            "created_at": Column("created"),
            "updated_at": Column("updated"),
        },
    ),
)

register_cdm_mapper(
    JiraMappers,
    "jira.worklogs",
    CdmMapper(
        WORKLOG,
        {
            "item_cdm_id": Reference(ITEM, "issue_id"),
            "author_cdm_id": Reference(USER, "author_id"),
            "comment": Column("comment"),
            "started_at": Column("started"),
            "time_spent_s": Column("time_spent_s"),
            "created_at": Column("created"),
            "updated_at": Column("updated"),
        },
    ),
)

register_cdm_mapper(
    JiraMappers,
    "jira.changelogs",
    CdmMapper(
        STATUS_CHANGE,
        {
            "item_cdm_id": Reference(ITEM, "issue_id"),
            "author_cdm_id": Reference(USER, "author_id"),
            "field": Column("field"),
            "field_id": Column("field_id"),
            "from_id": Column("from_id"),
            "from_value": Column("from_text"),
            "to_id": Column("to_id"),
            "to_value": Column("to_text"),
            "changed_at": Column("created"),
        },
    ),
)

register_cdm_mapper(
    JiraMappers,
    "jira.issue_links",
    CdmMapper(
        LINK,
        {
            "from_item_cdm_id": Reference(ITEM, "source_issue_id"),
            "to_item_cdm_id": Reference(ITEM, "target_issue_id"),
            "link_type": Column("type"),
            "phrase": Column("outward"),
        },
    ),
)

register_cdm_mapper(
    JiraMappers,
    "jira.sprints",
    CdmMapper(
        SPRINT,
        {
            "name": Column("name"),
            "state": Column("state"),
            "goal": Column("goal"),
            "board_id": Column("board_id"),
            "created_at": Column("created"),
            "started_at": Column("started"),
            "ended_at": Column("ends"),
            "completed_at": Column("completed"),
        },
        source_version=None,
    ),
)
