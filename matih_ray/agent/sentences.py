"""Every sentence that the agent says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from matih_ray.agent.conversation import Conversation, Outcome, Stream, SyncChoice
from matih_ray.agent.templates import Field, Template
from matih_ray.model.policy import RunMode
from matih_ray.model.schedule import Timing
from matih_ray.telemetry import REDACTED

# Streams that are listed in a message; all that are kept can be chosen.
SHOWN_STREAMS = 40

WELCOME = "Welcome! What type of data source would you like to connect?"
FORBIDDEN = "You don't have permission. Contact your administrator."
AT_START = "Nothing is under way. Say `start` when you would like to connect a data source."
STARTED_OVER = "All right, from the beginning."
CANCELLED = "Cancelled. Nothing that you told me is kept."
CANCELLED_DONE = "This conversation is over. What was created stays and can be changed any time."
NOWHERE_BACK = "There is nothing to go back to."
TOO_LONG = "That message is too long. Please send the fields in several messages."
NO_CDC = "Change data capture is not possible with this source; choose `full` or `incremental`."
NO_COLUMN = "I do not know that column. The columns that can order new rows are shown in `data`."
UNCLEAR_REVIEW = "Say `go` to start, or tell me what to change: a field, the streams, the schedule."
UNCLEAR_SYNC = (
    "I did not understand that. Say `ok`, or something like `orders incremental by updated_at`, "
    "`customers full` or `every night at 2`."
)
UNCLEAR_DONE = "All done here. Say `start over` to connect another source."
BROKEN = "Something went wrong on our side. What you told me is kept; please try again."
BAD_TIMING = (
    "I do not understand when that would be. Try `hourly`, `every night at 2` or a cron line."
)

NO_SESSION = "no such session; it may have expired"
STILL_BUSY = "an earlier message of this conversation is still being answered; try again later"
OVERTAKEN = "this conversation was continued elsewhere meanwhile; look at it, and say it again"
NOT_INSTALLED = "its connector is not installed."
DISCOVERY_CANCELLED = "it was cancelled."
RESUMED = "I was interrupted, and went on with what I was doing."


def full(max_sessions: int) -> str:
    """There is no room for another conversation."""
    return (
        f"this server has {max_sessions} conversations open and takes no more; try again later, or "
        "end one of yours"
    )


def working(effect: str, type_: str | None, streams: int) -> str | None:
    """What is being done, while the user waits; None for what takes no time."""
    match effect:
        case "connect":
            return f"Testing the connection to {type_} …"
        case "discover":
            return "Looking for streams …"
        case "execute":
            return f"Starting {streams} {'run' if streams == 1 else 'runs'} …"
        case _:
            return None


def doubtful_host(message: str) -> str:
    """A host that was just given may be wrong."""
    return f"A doubt: {message}. You can go on, or correct it."


_HELP = {
    "welcome": AT_START,
    "select_source_type": "Name a type of source, such as PostgreSQL, or paste its URL.",
    "gather_credentials": (
        "Send the fields in any order and any form: in a sentence, as `host: …` lines, as a URL or "
        "as JSON. Secrets are passed on once and never kept in this conversation."
    ),
    "test_connection": "Correct a field, such as `port: 5433`, or say `retry`.",
    "discover_schema": "I am looking for streams. Say `retry` to look again, or correct a field.",
    "select_streams": "Name the streams to load: `all`, `1-5, orders`, `all but audit*`.",
    "configure_sync": (
        "Say `ok` to take what I suggest; or `orders full`, `orders incremental by updated_at`, "
        "`every night at 2`, `once`, `destination iceberg`."
    ),
    "review": "Say `go` to start; or change a field, the streams, how they are loaded, or when.",
    "execute": "Say `retry` if something failed, or `start over` to connect another source.",
}  # fmt: skip
_ALWAYS = " You can also say `back`, `start over`, `cancel` or `change port to 5433` at any time."


def help_in(state: str) -> str:
    """What can be said in a state."""
    return _HELP[state] + _ALWAYS


def still_working(state: str) -> str:
    """An effect goes on behind the conversation's back."""
    what = {"test_connection": "The connection test", "execute": "Starting the runs"}
    return f"{what.get(state, 'Discovery')} is not done yet. Say `continue` to look again."


def which_type(titles: Sequence[str]) -> str:
    """Asks for the type again."""
    return f"I do not know that type of source. I can connect: {', '.join(titles)}."


def not_available(template: Template, why: str) -> str:
    """The type is known and cannot be used here."""
    return f"{template.title} cannot be connected in this installation: {why}"


def needs(template: Template) -> str:
    """The seed's prompt: all that is needed."""
    labels = ", ".join(field.label for field in template.required)
    return f"To connect to {template.title}, I'll need: {labels}"


def still_needs(missing: Sequence[Field]) -> str:
    """Which fields are missing, and the one that a bare answer is for."""
    first = missing[0]
    hint = f" (for example {first.example})" if first.example else ""
    default = f" (usually {first.default})" if first.default else ""
    none = " Say `none` if there is none." if first.is_secret else ""
    if len(missing) == 1:
        return f"What is the {first.label}{hint}{default}?{none}"
    rest = ", ".join(field.label for field in missing)
    return f"I still need: {rest}. What is the {first.label}{hint}{default}?{none}"


def wrong_field(field: Field) -> str:
    """A value that cannot be; the value is not repeated."""
    if field.kind == "port":
        return f"{field.label} must be a number between 1 and 65535."
    if field.kind == "host":
        return f"{field.label} must be a name or an address, without spaces."
    if field.kind == "region":
        return f"{field.label} must be a name such as eu-central-1."
    if field.kind == "tls":
        return f"{field.label} must be disable, prefer, require, verify-ca or verify-full."
    return f"{field.label} must be some text of at most 4096 characters."


def unclear_field(missing: Sequence[Field]) -> str:
    """A bare value that could be several fields."""
    return f"I cannot tell what that is. Write it with its name, such as `{missing[0].name}: …`."


def noted(fields: Iterable[Field]) -> str:
    """Which fields were understood, without their values."""
    return f"Noted: {', '.join(field.label for field in fields)}."


def known_fields(template: Template, conversation: Conversation) -> str:
    """All fields that are known; secrets are only named."""
    parts = [
        f"{field.label} {conversation.fields[field.name]}"
        for field in template.fields
        if field.name in conversation.fields
    ]
    parts += [
        f"{field.label} {REDACTED}"
        for field in template.fields
        if field.name in conversation.given_secrets
    ]
    return ", ".join(parts)


def to_correct(known: str) -> str:
    """What is known, to be corrected."""
    return f"So far I know: {known}. Correct any of it, or say `retry` to test the connection."


def connected(title: str, name: str, version: str | None) -> str:
    """The test succeeded."""
    server = f" ({version})" if version else ""
    return f"Connected to {title}{server}. It is saved as connector `{name}`."


def not_connected(message: str) -> str:
    """The test failed; the message holds the remedy."""
    end = "" if message.rstrip().endswith((".", "!", "?")) else "."
    return (
        f"The connection test failed: {message.rstrip()}{end} "
        "Correct a field, such as `port: 5433`, or say `retry`."
    )


_NO_TABLES = "the database is empty, or the tables are in another database"
_CAUSES = {
    "POSTGRESQL": "the account may not see any table (it needs CONNECT on the database, and USAGE "
    f"and SELECT); {_NO_TABLES}",
    "MYSQL": f"the account may not see any table (it needs SELECT on them); {_NO_TABLES}",
    "SNOWFLAKE": "the role may not see any table (it needs USAGE on database and schema, and "
    "SELECT); the schema is empty, or the tables are in another schema or database",
    "S3": "there is no file of a known format (Parquet, CSV, JSON lines) below the folder; the "
    "keys may not list the bucket (they need s3:ListBucket and s3:GetObject)",
}
_CAUSES_ELSEWHERE = (
    "the credentials may not see what is there; there is nothing yet, or it is elsewhere than the "
    "fields say"
)


def no_streams(template: Template, skipped: int) -> str:
    """Nothing was found, and why that may be."""
    causes = _CAUSES.get(template.type, _CAUSES_ELSEWHERE)
    hidden = f" {skipped} could not be read." if skipped else ""
    return (
        f"I found no streams.{hidden} Possible causes: {causes}. "
        "Correct a field or the permissions and say `retry`."
    )


def discovery_failed(message: str) -> str:
    """The catalog could not be read."""
    return f"I could not list the streams: {message} Say `retry`, or correct a field."


def found_streams(streams: Sequence[Stream], unlisted: int) -> str:
    """The streams with their sizes, and how to choose."""
    total = len(streams) + unlisted
    lines = [f"I found {total} {'stream' if total == 1 else 'streams'}:"]
    lines += [f"{n}. {shown_stream(s)}" for n, s in enumerate(streams[:SHOWN_STREAMS], 1)]
    if total > SHOWN_STREAMS:
        lines.append(f"… and {total - SHOWN_STREAMS} more.")
    if unlisted:
        lines.append(f"The last {unlisted} cannot be chosen here; load them from the connector.")
    lines.append("Which would you like to load? `all`, `1-3`, names, `all but audit*`.")
    return "\n".join(lines)


def shown_stream(stream: Stream) -> str:
    """One stream with its estimates."""
    sizes = []
    if stream.rows is not None:
        sizes.append(f"about {stream.rows:,} {'row' if stream.rows == 1 else 'rows'}")
    if stream.bytes is not None:
        sizes.append(_size(stream.bytes))
    return f"{stream.unit_id} ({', '.join(sizes)})" if sizes else stream.unit_id


def unknown_streams(words: Sequence[str]) -> str:
    """Names that are no streams."""
    return f"I found no stream for: {', '.join(words)}. Nothing was chosen yet."


CHOOSE_SOME = "That chooses no stream. Name at least one, or say `all`."


def sync_plan(conversation: Conversation) -> str:
    """How each chosen stream would be loaded, and why."""
    lines = ["This is how I would load them:"]
    for stream in conversation.chosen_streams()[:SHOWN_STREAMS]:
        choice = conversation.choice(stream)
        reason = f" ({stream.reason})" if choice == stream.suggested and stream.reason else ""
        lines.append(f"- {stream.unit_id}: {shown_choice(choice)}{reason}")
    more = len(conversation.chosen) - SHOWN_STREAMS
    if more > 0:
        lines.append(f"… and {more} more.")
    lines.append(f"Where to: {shown_destination(conversation)}.")
    lines.append(f"When: {shown_timing(conversation.timing)}.")
    log = ", `orders cdc`" if conversation.keeps_changes else ""
    lines.append(f"Say `ok`, or what to change, such as `orders full`{log} or `every night at 2`.")
    return "\n".join(lines)


def shown_choice(choice: SyncChoice) -> str:
    """How a stream is loaded, in words."""
    if choice.run_mode is RunMode.FULL:
        return "full, replacing the table each time"
    key = ", ".join(choice.merge_key)
    if choice.run_mode is RunMode.CDC:
        known = "all rows, then every change from the server's log"
        return f"{known}, replacing changed rows by {key}" if key else f"{known} as a further row"
    by = f" by {choice.cursor_column}" if choice.cursor_column else ""
    return f"incremental{by}, replacing changed rows by {key}" if key else f"incremental{by}"


def shown_destination(conversation: Conversation) -> str:
    """Where rows go, in words."""
    return "Iceberg tables" if conversation.sink is None else f"`{conversation.sink.name}`"


def unknown_destination(names: Sequence[str]) -> str:
    """There is no such place for rows."""
    return f"I do not know that destination. There are: {', '.join(names)}."


def shown_timing(timing: Timing | None) -> str:
    """When, in words."""
    if timing is None:
        return "once, now"
    if timing.cron is not None:
        return f"now, and then at `{timing.cron}` ({timing.time_zone})"
    return f"now, and then every {timing.every_s} seconds"


def reason_changed(column: str, *, merged: bool) -> str:
    """Why an incremental load by a time of change is suggested."""
    known = f"`{column}` tells which rows are new or changed"
    return known if merged else f"{known}; without a key, changed rows arrive as further rows"


REASON_NO_CURSOR = "no column tells which rows are new"
REASON_KEY_ONLY = "its key shows new rows but not changed ones"


def review(template: Template, conversation: Conversation) -> str:
    """Everything, before it is done."""
    lines = [
        "Please check:",
        f"- Source: {template.title}: {known_fields(template, conversation)}",
        f"- Connector: {conversation.connector_name}",
    ]
    lines += [
        f"- {stream.unit_id}: {shown_choice(conversation.choice(stream))}"
        for stream in conversation.chosen_streams()[:SHOWN_STREAMS]
    ]
    more = len(conversation.chosen) - SHOWN_STREAMS
    if more > 0:
        lines.append(f"- … and {more} more streams")
    lines += [
        f"- Destination: {shown_destination(conversation)}",
        f"- When: {shown_timing(conversation.timing)}",
        "Say `go` to start, or what to change.",
    ]
    return "\n".join(lines)


def executed(conversation: Conversation, outcomes: Sequence[Outcome]) -> str:
    """What succeeded and what did not."""
    started = [o for o in outcomes if o.run_id is not None]
    scheduled = [o for o in outcomes if o.schedule_id is not None]
    failed = [o for o in outcomes if o.problem is not None]
    lines = [f"Connector `{conversation.connector_name}` is created."]
    if started:
        lines.append(f"{len(started)} of {len(outcomes)} first runs are started:")
        lines += [f"- {o.unit_id}: run {o.run_id} ({o.link})" for o in started[:SHOWN_STREAMS]]
    if conversation.timing is not None:
        lines.append(f"{len(scheduled)} of {len(outcomes)} schedules are created.")
    if failed:
        lines.append("This did not work:")
        lines += [f"- {o.unit_id}: {o.problem}" for o in failed[:SHOWN_STREAMS]]
        lines.append("Say `retry`; what is there already is not made again.")
    else:
        lines.append("Follow a run by its link, or with `matih runs show RUN`.")
    return "\n".join(lines)


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} TB"
