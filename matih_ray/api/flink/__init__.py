"""HTTP as Flink has it: its SQL Gateway (`/v1` to `/v3`) and the REST API of its jobs (`/jobs`).

For clients that were written for Flink: curl as in its documentation, dbt, notebooks. Shapes and
words are Flink's, errors too (`{"errors": […]}`); the use cases are those of our own API, and so
are tokens, tenants and limits. The tenant is the token's, since Flink's paths know none. May import
what `api` may. Not in our OpenAPI description: Flink's own describes it.

    boundary   errors in Flink's form
    sessions   the SQL Gateway
    results    an operation's answer as a page of results
    jobs       jobs, savepoints, checkpoints, watermarks

Why beside our own API and not instead of it: Flink's has no tenants, no problems with a remedy, no
paging; and why not left out: nobody should have to rewrite a client in order to try this.
"""
