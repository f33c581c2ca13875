"""Whatever an app may say, as strategies of Hypothesis: every text that Python knows, and every number."""

from __future__ import annotations

from hypothesis import strategies as st

LINE_ENDS = "\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029"
"""What one reader or another takes for the end of a line."""

texts = st.text(st.characters(codec=None, exclude_categories=()) | st.sampled_from(LINE_ENDS + "\0:\ufeff\ud800"))
numbers = st.integers() | st.integers(0, 400).map(lambda power: 10**power) | st.floats()
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
