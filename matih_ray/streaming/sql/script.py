"""From the text of a file to statements: split, parsed, variables filled in, options overridden.

Variables are filled into string literals after parsing, never into the text: a value with a quote
in it stays a value, and a syntax error cannot show a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.tokenizer_core import TokenType

from matih_ray.errors import SqlInvalidError, SqlNotSupportedError
from matih_ray.streaming.sql.dialect import (
    ComputedColumn,
    Flink,
    MetadataColumn,
    Watermark,
    parse_statement,
)
from matih_ray.streaming.sql.types import FlinkType, type_of

# A script is written by people.
MAX_SCRIPT_BYTES = 1_000_000
HIDDEN = "******"

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SECRET_KEY = re.compile(r"password|secret|token|credential|jaas|key$|\buri\b", re.IGNORECASE)
_CATALOG = re.compile(r"\s*CREATE\s+CATALOG\b", re.IGNORECASE)
_EXPLAIN = re.compile(r"\s*EXPLAIN\s+(PLAN\s+FOR\s+)?", re.IGNORECASE)
_BEGIN_SET = re.compile(
    r"\s*(EXECUTE\s+STATEMENT\s+SET\s+BEGIN|BEGIN\s+STATEMENT\s+SET\s*$)", re.IGNORECASE
)
_SET = re.compile(r"\s*SET\s+'((?:[^']|'')+)'\s*=\s*'((?:[^']|'')*)'\s*", re.IGNORECASE)


def is_secret(key: str) -> bool:
    """Whether an option of this name holds a secret."""
    return _SECRET_KEY.search(key) is not None


@dataclass(frozen=True)
class Options:
    """Options of a table; what came from a variable or has a secret's name is not shown."""

    values: Mapping[str, str] = field(repr=False)
    hidden: frozenset[str] = frozenset()

    def shown(self) -> dict[str, str]:
        """The options as people may see them."""
        return {
            key: HIDDEN if key in self.hidden or is_secret(key) else value
            for key, value in sorted(self.values.items())
        }

    def overridden(self, changes: Mapping[str, str]) -> Options:
        """With options replaced or added from outside."""
        hidden = self.hidden - set(changes)
        return Options({**self.values, **changes}, hidden)


@dataclass(frozen=True)
class ColumnDefinition:
    """A column: physical, `metadata` (its key), or computed (`value`)."""

    name: str
    type: FlinkType | None = None
    not_null: bool = False
    metadata: str | None = None
    virtual: bool = False
    value: exp.Expr | None = None


@dataclass(frozen=True)
class CreateTable:
    """`CREATE TABLE`."""

    path: tuple[str, ...]
    columns: tuple[ColumnDefinition, ...]
    options: Options
    watermark: tuple[str, exp.Expr] | None = None
    primary_key: tuple[str, ...] = ()
    partition_by: tuple[str, ...] = ()
    if_not_exists: bool = False


@dataclass(frozen=True)
class CreateTableAs:
    """`CREATE TABLE … AS`: a table whose columns are the query's, and an INSERT of its rows."""

    table: CreateTable  # without columns
    query: exp.Expr


@dataclass(frozen=True)
class CreateView:
    """`CREATE VIEW`."""

    path: tuple[str, ...]
    columns: tuple[str, ...]
    query: exp.Expr
    if_not_exists: bool = False


@dataclass(frozen=True)
class CreateCatalog:
    """`CREATE CATALOG`."""

    name: str
    options: Options


@dataclass(frozen=True)
class SetOption:
    """`SET 'key' = 'value'`."""

    key: str
    value: str


@dataclass(frozen=True)
class Insert:
    """`INSERT INTO`."""

    path: tuple[str, ...]
    columns: tuple[str, ...]
    query: exp.Expr
    explain: bool = False


@dataclass(frozen=True)
class Query:
    """A query on its own; `limit` is how many rows it asks for."""

    query: exp.Expr
    limit: int | None = None


Statement = CreateTable | CreateTableAs | CreateView | CreateCatalog | SetOption | Insert | Query


def parse_script(text: str, variables: Mapping[str, str]) -> list[Statement]:
    """The statements of a script, in order; a statement set becomes its INSERTs.

    Raises:
        SqlInvalidError: It is no Flink SQL, or a variable is not set.
        SqlNotSupportedError: It is, and this software does not know it; context names the clause.
    """
    if len(text.encode()) > MAX_SCRIPT_BYTES:
        raise SqlInvalidError(f"the script is larger than {MAX_SCRIPT_BYTES} bytes")
    inside, found = False, []
    for line, part in split(text):
        sql = part
        if opening := _BEGIN_SET.match(sql):
            if inside:
                raise SqlInvalidError(f"line {line}: a statement set cannot hold another")
            inside, sql = True, sql[opening.end() :]
        elif inside and sql.strip().upper() == "END":
            inside = False
            continue
        if not sql.strip():
            continue
        statement = _statement(sql, line, variables)
        if inside and not isinstance(statement, Insert):
            raise SqlInvalidError(f"line {line}: a statement set holds INSERTs only")
        found.append(statement)
    if inside:
        raise SqlInvalidError("the statement set has no END")
    return found


def split(text: str) -> Iterator[tuple[int, str]]:
    """The text between semicolons that are no part of a literal or comment, with its line.

    Raises:
        SqlInvalidError: A literal or a comment has no end.
    """
    try:
        tokens = Flink().tokenize(text)
    except SqlglotError as error:
        raise SqlInvalidError(
            f"this is no Flink SQL: {_first_line(error)}; variables such as ${{NAME}} may stand "
            "inside string literals only"
        ) from None
    start, line = 0, None
    for token in tokens:
        if token.token_type == TokenType.SEMICOLON:
            if line is not None:
                yield line, text[start : token.start]
            start, line = token.end + 1, None
        elif line is None:
            line, start = token.line, token.start
    if line is not None:
        yield line, text[start:]


def _statement(sql: str, line: int, variables: Mapping[str, str]) -> Statement:
    explained = _EXPLAIN.match(sql)
    if explained:
        sql = sql[explained.end() :]
    if match := _SET.fullmatch(sql):
        return SetOption(match[1].replace("''", "'"), match[2].replace("''", "'"))
    is_catalog = _CATALOG.match(sql)
    if is_catalog:
        sql = "CREATE TABLE" + sql[is_catalog.end() :]  # the same grammar behind another word
    try:
        tree = parse_statement(sql)
    except SqlglotError as error:
        raise SqlInvalidError(f"statement at line {line}: {_first_line(error)}") from None
    hidden = _fill(tree, variables)
    if is_catalog:
        return CreateCatalog(tree.this.name, _options(tree, hidden))
    found = _understood(tree, hidden)
    if explained and isinstance(found, CreateTableAs):
        return Insert(found.table.path, (), found.query, explain=True)
    if explained and isinstance(found, Query):
        return Insert((), (), found.query, explain=True)
    if explained and isinstance(found, Insert):
        return replace(found, explain=True)
    if found is not None and not explained:
        return found
    word = sql.split()[0].upper()
    raise SqlNotSupportedError(
        f"statement at line {line}: {word} is not supported here", clause=word
    )


def _understood(tree: exp.Expr, hidden: frozenset[int]) -> Statement | None:
    if isinstance(tree, exp.Create):
        return _create(tree, hidden)
    if isinstance(tree, exp.Insert):
        return _insert(tree)
    return _query(tree) if isinstance(tree, exp.Query) else None


def _first_line(error: SqlglotError) -> str:
    return str(error).partition(". Line")[0].splitlines()[0]


def _fill(tree: exp.Expr, variables: Mapping[str, str]) -> frozenset[int]:
    """Put variables into string literals; the ids of the literals that had some."""
    filled = set()
    for literal in tree.find_all(exp.Literal):
        if literal.is_string and _VARIABLE.search(literal.this):
            literal.set("this", _VARIABLE.sub(lambda m: _value(m[1], variables), literal.this))
            filled.add(id(literal))
    return frozenset(filled)


def _value(name: str, variables: Mapping[str, str]) -> str:
    if name not in variables:
        raise SqlInvalidError(f"variable {name} is not set in the environment", variable=name)
    return variables[name]


def _create(tree: exp.Create, hidden: frozenset[int]) -> Statement:
    kind, exists = tree.kind or "", bool(tree.args.get("exists"))
    if tree.args.get("replace"):
        raise SqlNotSupportedError("CREATE OR REPLACE is not supported", clause="OR REPLACE")
    if kind == "VIEW":
        columns = tuple(column.name for column in tree.this.expressions)
        table = tree.this.this if isinstance(tree.this, exp.Schema) else tree.this
        return CreateView(path_of(table), columns, tree.expression, exists)
    if kind == "TABLE" and tree.expression is not None:
        return _create_as(tree, hidden)
    if kind != "TABLE" or not isinstance(tree.this, exp.Schema):
        raise SqlNotSupportedError(
            f"CREATE {kind or 'statement'} of this form is not supported", clause="CREATE"
        )
    return _table(tree, tree.this, hidden)


def _create_as(tree: exp.Create, hidden: frozenset[int]) -> CreateTableAs:
    if not isinstance(tree.this, exp.Table):
        raise SqlNotSupportedError(
            "CREATE TABLE … AS takes its columns from the query; columns, keys and watermarks "
            "beside them are not supported",
            clause="AS",
        )
    if not isinstance(tree.expression, exp.Query):
        raise SqlInvalidError("CREATE TABLE … AS needs a query")
    table = CreateTable(
        path_of(tree.this),
        (),
        _options(tree, hidden),
        partition_by=_partitions(tree),
        if_not_exists=bool(tree.args.get("exists")),
    )
    return CreateTableAs(table, tree.expression)


def _table(tree: exp.Create, schema: exp.Schema, hidden: frozenset[int]) -> CreateTable:
    columns, watermark, key = [], None, ()
    for node in schema.expressions:
        if isinstance(node, Watermark):
            watermark = (node.this.name, node.expression)
        elif isinstance(node, exp.PrimaryKey):
            if "NOT ENFORCED" not in [str(option) for option in node.args.get("options") or ()]:
                raise SqlInvalidError("a PRIMARY KEY must be NOT ENFORCED")
            key = tuple(column.name for column in node.expressions)
        else:
            columns.append(_column(node))
    names = [column.name for column in columns]
    if len(set(names)) < len(names):
        raise SqlInvalidError(f"table {schema.this.name} has two columns of one name")
    return CreateTable(
        path_of(schema.this),
        tuple(columns),
        _options(tree, hidden),
        watermark,
        key,
        _partitions(tree),
        bool(tree.args.get("exists")),
    )


def _column(node: exp.Expr) -> ColumnDefinition:
    if isinstance(node, ComputedColumn):
        return ColumnDefinition(node.name, value=node.expression)
    if isinstance(node, MetadataColumn):
        key = node.args.get("key")
        return ColumnDefinition(
            node.name,
            type_of(node.args["kind"]),
            metadata=key.this if key else node.name,
            virtual=bool(node.args.get("virtual")),
        )
    if not isinstance(node, exp.ColumnDef) or node.kind is None:
        raise SqlNotSupportedError(f"{node.sql()} in a table is not supported", clause="column")
    kinds = [constraint.kind for constraint in node.constraints]
    if any(isinstance(kind, exp.PrimaryKeyColumnConstraint) for kind in kinds):
        raise SqlInvalidError(
            f"column {node.name}: write PRIMARY KEY (…) NOT ENFORCED on its own line"
        )
    not_null = any(isinstance(kind, exp.NotNullColumnConstraint) for kind in kinds)
    return ColumnDefinition(node.name, type_of(node.kind), not_null)


def _partitions(tree: exp.Create) -> tuple[str, ...]:
    partitioned = tree.find(exp.PartitionedByProperty)
    return tuple(_partition(part) for part in partitioned.this.expressions) if partitioned else ()


def _partition(node: exp.Expr) -> str:
    """`hour(ts)` and the like, as the Iceberg sink writes them; Flink has plain columns only."""
    if isinstance(node, exp.Identifier | exp.Column):
        return node.name
    return (
        f"{node.sql_name().lower() if isinstance(node, exp.Func) else node.name}({node.this.name})"
    )


def _options(tree: exp.Expr, hidden: frozenset[int]) -> Options:
    values, secret = {}, set()
    for node in tree.find_all(exp.Property):
        if type(node) is exp.Property:
            value = node.args["value"]
            values[node.name] = value.name
            if id(value) in hidden:
                secret.add(node.name)
    return Options(values, frozenset(secret))


def _insert(tree: exp.Insert) -> Insert:
    if tree.args.get("overwrite"):
        raise SqlNotSupportedError("INSERT OVERWRITE is not supported", clause="OVERWRITE")
    target = tree.this
    columns: tuple[str, ...] = ()
    if isinstance(target, exp.Schema):
        columns, target = tuple(one.name for one in target.expressions), target.this
    if not isinstance(tree.expression, exp.Query):
        raise SqlNotSupportedError("INSERT without a query is not supported", clause="VALUES")
    return Insert(path_of(target), columns, tree.expression)


def _query(tree: exp.Query) -> Query:
    """A query without the LIMIT that stands last: it ends whoever reads the rows."""
    limit = tree.args.get("limit")
    if not isinstance(limit, exp.Limit) or not limit.expression.is_int:
        return Query(tree)
    bare = tree.copy()
    bare.set("limit", None)
    return Query(bare, int(limit.expression.name))


def path_of(table: exp.Expr) -> tuple[str, ...]:
    """The parts of a table's name, from the outside in."""
    return tuple(part.name for part in table.parts) if isinstance(table, exp.Table) else ()
