"""What Jira and Confluence share: how one logs in to Atlassian Cloud, and how its sites are asked.

    config        the fields of a connector
    connection    an `ApiClient` for them, with the tenant's rate governor
    documents     the document format of rich text, as plain text

May import `sources.http`, `sources.provider_services`, `sources.rate_governor`, `model`, `errors`.
"""
