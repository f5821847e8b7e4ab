"""Links in Confluence's storage format."""

from __future__ import annotations

import pytest

from matih_ray.sources.confluence.storage import Link, links_of


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            """<ac:link><ri:page ri:space-key="OPS" ri:content-title="Night &amp; day"/>
            <ac:plain-text-link-body><![CDATA[see <b> & there]]></ac:plain-text-link-body>
            </ac:link>""",
            Link("page", space_key="OPS", title="Night & day", text="see <b> & there"),
        ),
        (
            """<ac:link ac:anchor="top"><ri:page ri:content-title="Ünï"/>
            <ac:link-body><em>two</em> words</ac:link-body></ac:link>""",
            Link("page", title="Ünï", anchor="top", text="two words"),
        ),
        ('<ac:link ac:anchor="here"/>', Link("page", anchor="here")),
        (
            """<ac:link><ri:attachment ri:filename="a.pdf">
            <ri:page ri:content-title="Other"/></ri:attachment></ac:link>""",
            Link("attachment", title="Other", attachment="a.pdf"),
        ),
        (
            '<ac:image><ri:attachment ri:filename="b.png" /></ac:image>',
            Link("attachment", attachment="b.png"),
        ),
        (
            '<ac:link><ri:user ri:account-id="5b10" /></ac:link>',
            Link("user", user_id="5b10"),
        ),
        ('<ac:link><ri:space ri:space-key="OPS"/></ac:link>', Link("space", space_key="OPS")),
        (
            '<a href="https://example.org/?a=1&amp;b=2">x&nbsp;y</a>',
            Link("url", url="https://example.org/?a=1&b=2", text="x y"),
        ),
        (
            """<a href="https://s.example/wiki/spaces/OPS/pages/12345/A+title"
            data-card-appearance="inline">t</a>""",
            Link(
                "card",
                url="https://s.example/wiki/spaces/OPS/pages/12345/A+title",
                page_id="12345",
                text="t",
            ),
        ),
        (
            '<a href="https://elsewhere.example/pages/12345/x">t</a>',
            Link("url", url="https://elsewhere.example/pages/12345/x", text="t"),
        ),
    ],
)
def test_a_link_is_found(body, expected):
    assert links_of(f"<p>before {body} after</p>") == [expected]


@pytest.mark.parametrize(
    "body",
    [
        None,
        "",
        "<p>no link</p>",
        '<a name="x">no target</a>',
        "<ac:link></ac:link>",
        '<ac:plain-text-body><![CDATA[<a href="https://x.example">code</a>]]></ac:plain-text-body>',
        "<![CDATA[never closed",
        "<a href='",
        "<<<>>>",
    ],
)
def test_what_is_no_link_is_none(body):
    assert links_of(body) == []


def test_links_to_one_target_are_counted():
    link = '<ac:link><ri:page ri:content-title="A"/></ac:link>'
    (found,) = links_of(link * 3)
    assert found.occurrences == 3


def test_the_digest_names_the_target_and_not_the_text():
    one, other = (
        links_of('<a href="https://x.example">1</a>'),
        links_of('<a href="https://x.example">2</a>'),
    )
    assert one[0].digest == other[0].digest
