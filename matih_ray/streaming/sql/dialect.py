"""A sqlglot dialect for Flink SQL: the grammar points that no built-in dialect has.

Source of the grammar: the SQL reference of Apache Flink 2.3. What no plan can be made of is parsed
all the same where that is cheap, so that the refusal can name the clause.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from sqlglot import exp, parser, tokens
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import ParseError as SqlglotParseError
from sqlglot.tokenizer_core import TokenType

WINDOW_FUNCTIONS = ("TUMBLE", "HOP", "CUMULATE", "SESSION")
AUXILIARY = tuple(
    f"{window}_{part}"
    for window in ("TUMBLE", "HOP", "SESSION")
    for part in ("START", "END", "ROWTIME", "PROCTIME")
)


class MetadataColumn(exp.Expression):
    """`name TYPE METADATA [FROM 'key'] [VIRTUAL]`."""

    arg_types: ClassVar[dict[str, bool]] = {
        "this": True,
        "kind": True,
        "key": False,
        "virtual": False,
    }


class ComputedColumn(exp.Expression):
    """`name AS expression`."""

    arg_types: ClassVar[dict[str, bool]] = {"this": True, "expression": True}


class Watermark(exp.Expression):
    """`WATERMARK FOR column AS expression`."""

    arg_types: ClassVar[dict[str, bool]] = {"this": True, "expression": True}


class WindowTable(exp.Expression):
    """`TUMBLE(TABLE t [PARTITION BY k], DESCRIPTOR(ts), INTERVAL …)` as a table."""

    arg_types: ClassVar[dict[str, bool]] = {
        "this": True,
        "table": True,
        "time": True,
        "partition": False,
        "intervals": True,
        "alias": False,
    }


def parse_statement(sql: str) -> exp.Expression:
    """One statement.

    Raises:
        sqlglot.errors.SqlglotError: It is no Flink SQL.
    """
    found = [one for one in Flink().parse(sql) if one is not None]
    if len(found) != 1:
        raise SqlglotParseError("expected one statement")
    statement = found[0]
    assert isinstance(statement, exp.Expression)  # noqa: S101 - the parser makes nothing else
    return statement


class Flink(Dialect):
    """Identifiers in backticks, strings in single quotes without escapes but the doubled quote."""

    class Tokenizer(tokens.Tokenizer):
        IDENTIFIERS: ClassVar[list[str | tuple[str, str]]] = ["`"]
        QUOTES: ClassVar[list[tuple[str, str] | str]] = ["'"]
        STRING_ESCAPES: ClassVar[list[str]] = ["'"]

    class Parser(parser.Parser):
        FUNC_TOKENS = parser.Parser.FUNC_TOKENS | {TokenType.SESSION}

        def _parse_field_def(self) -> exp.Expr | None:
            if self._match_text_seq("WATERMARK", "FOR"):
                column = self._parse_column()
                self._match(TokenType.ALIAS)
                return self.expression(Watermark(this=column, expression=self._parse_assignment()))
            index = self._index
            name = self._parse_id_var()
            if name is not None and self._match(TokenType.ALIAS):
                value = self._parse_assignment()
                return self.expression(ComputedColumn(this=name, expression=value))
            kind = self._parse_types(schema=True) if name is not None else None
            if kind is not None and self._match_text_seq("METADATA"):
                key = self._parse_string() if self._match_text_seq("FROM") else None
                virtual = bool(self._match_text_seq("VIRTUAL"))
                return self.expression(
                    MetadataColumn(this=name, kind=kind, key=key, virtual=virtual)
                )
            self._retreat(index)
            return super()._parse_field_def()

        def _parse_table(
            self,
            schema: bool = False,  # noqa: FBT001, FBT002 - the signature is sqlglot's
            joins: bool = False,  # noqa: FBT001, FBT002
            alias_tokens: Collection[TokenType] | None = None,
            parse_bracket: bool = False,  # noqa: FBT001, FBT002
            is_db_reference: bool = False,  # noqa: FBT001, FBT002
            parse_partition: bool = False,  # noqa: FBT001, FBT002
            consume_pipe: bool = False,  # noqa: FBT001, FBT002
        ) -> exp.Expr | None:
            index = self._index
            wrapped = self._match_text_seq("TABLE") and self._match(TokenType.L_PAREN)
            window = self._parse_window_table()
            if window is not None:
                if wrapped:
                    self._match_r_paren()
                window.set("alias", self._parse_table_alias())
                return window
            self._retreat(index)
            return super()._parse_table(
                schema,
                joins,
                alias_tokens,
                parse_bracket,
                is_db_reference,
                parse_partition,
                consume_pipe,
            )

        def _parse_window_table(self) -> WindowTable | None:
            name = self._curr.text.upper() if self._curr else ""
            if name not in WINDOW_FUNCTIONS or not self._next:
                return None
            if self._next.token_type != TokenType.L_PAREN:
                return None
            self._advance(2)
            if not self._match_text_seq("TABLE"):
                return None
            table = self._parse_table_parts()
            partition = None
            if self._match(TokenType.PARTITION_BY):
                partition = self._parse_wrapped_csv(self._parse_column, optional=True)
            self._match(TokenType.COMMA)
            if not self._match_text_seq("DESCRIPTOR"):
                self.raise_error("expected DESCRIPTOR(column)")
            time = self._parse_wrapped(self._parse_column)
            intervals = []
            while self._match(TokenType.COMMA):
                intervals.append(self._parse_assignment())
            self._match_r_paren()
            return WindowTable(
                this=name, table=table, time=time, partition=partition, intervals=intervals
            )
