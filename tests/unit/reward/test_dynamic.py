"""The dynamic reward: every corner of the rule, and what must hold for any group."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciarl.category import Category
from speciarl.reward import Member, Unparsable, load
from speciarl.reward.dynamic import reference_level, rewards
from speciarl.verdict import Reason, Source, Unscorable, Verdict

W, A, G, L, S, M = (Verdict(category, None, Source.LIVE) for category in Category)
LOST = Unscorable(Reason.TIMEOUT, "too late")
BLANK = Unparsable()

verdicts = st.sampled_from([W, A, G, L, S, M])
members: st.SearchStrategy[Member] = st.one_of(
    verdicts, st.just(BLANK), st.builds(Unscorable, st.sampled_from(list(Reason)))
)
silences: st.SearchStrategy[Member] = st.one_of(st.just(LOST), st.just(BLANK))
groups = st.lists(members, max_size=12)


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ([], []),
        ([W, W], [0, 0]),
        ([W, A], [0, 1]),
        ([W, A, G], [0, 0, 1]),
        ([A, G, L], [0, 0, 1]),
        ([W, A, G, L, S], [0, 0, 0, 0, 1]),
        ([L, S, M], [0, 1, 1]),
        ([M, L, G], [1, 0, 0]),
        ([S, S], [1, 1]),
        ([A], [1]),
        ([BLANK], [-1]),
        ([BLANK, W], [-1, 0]),
        ([BLANK, A, W], [-1, 1, 0]),
        ([BLANK, S, L], [-1, 1, 0]),
        ([LOST], [None]),
        ([LOST, BLANK], [None, -1]),
        ([LOST, G, A], [None, 1, 0]),
    ],
)
def test_corners(group: list[Member], expected: list[float | None]) -> None:
    assert rewards(group) == expected


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ([], None),
        ([LOST, BLANK], None),
        ([W], Category.ABSTAIN),
        ([A, W], Category.ABSTAIN),
        ([G], Category.GENERIC),
        ([L, G], Category.LESS_SPECIFIC),
        ([S, L], Category.SPECIFIC),
        ([M, L], Category.SPECIFIC),
    ],
)
def test_reference_level(group: list[Member], expected: Category | None) -> None:
    assert reference_level(group) == expected


@given(groups)
def test_every_member_gets_the_reward_of_its_kind(group: list[Member]) -> None:
    for member, reward in zip(group, rewards(group), strict=True):
        if isinstance(member, Unscorable):
            assert reward is None
        elif isinstance(member, Unparsable):
            assert reward == -1
        else:
            assert reward in (0, 1)


@given(st.data(), groups)
def test_order_does_not_matter(data: st.DataObject, group: list[Member]) -> None:
    order = data.draw(st.permutations(range(len(group))))
    shuffled = rewards([group[index] for index in order])
    assert shuffled == [rewards(group)[index] for index in order]


@given(st.data(), groups, verdicts)
def test_a_better_verdict_never_earns_less(data: st.DataObject, others: list[Member], verdict: Verdict) -> None:
    place = data.draw(st.integers(0, len(others)))
    better = replace(verdict, category=data.draw(st.sampled_from([c for c in Category if c >= verdict.category])))
    before = rewards([*others[:place], verdict, *others[place:]])[place]
    after = rewards([*others[:place], better, *others[place:]])[place]
    assert before is not None
    assert after is not None
    assert after >= before


@given(st.data(), groups)
def test_members_without_a_verdict_change_nothing_for_the_others(data: st.DataObject, group: list[Member]) -> None:
    place = data.draw(st.integers(0, len(group)))
    silent = data.draw(silences)
    joined = rewards([*group[:place], silent, *group[place:]])
    assert joined[:place] + joined[place + 1 :] == rewards(group)


@given(st.data(), st.lists(members, min_size=1, max_size=12))
def test_losing_a_verdict_acts_only_through_the_best_of_the_rest(data: st.DataObject, group: list[Member]) -> None:
    place = data.draw(st.integers(0, len(group) - 1))
    left = [*group[:place], LOST, *group[place + 1 :]]
    if reference_level(left) == reference_level(group):
        assert [r for i, r in enumerate(rewards(left)) if i != place] == [
            r for i, r in enumerate(rewards(group)) if i != place
        ]


@given(st.lists(verdicts, min_size=1, max_size=12))
def test_someone_earns_unless_all_are_wrong(group: list[Verdict]) -> None:
    all_wrong = all(verdict.category is Category.WRONG for verdict in group)
    assert any(reward == 1 for reward in rewards(group)) is not all_wrong


@pytest.mark.parametrize(
    ("support", "group", "level", "expected"),
    [
        (2, [S, L, L, G], Category.LESS_SPECIFIC, [1, 1, 1, 0]),  # one lucky guess is not asked of the others
        (2, [S, S, L], Category.SPECIFIC, [1, 1, 0]),
        (2, [M, S, L], Category.SPECIFIC, [1, 1, 0]),  # who reaches more reaches less
        (2, [M, M], Category.SPECIFIC, [1, 1]),
        (2, [S, W, W], Category.ABSTAIN, [1, 0, 0]),
        (2, [S, A, W], Category.ABSTAIN, [1, 1, 0]),
        (3, [S, S, L, G], Category.LESS_SPECIFIC, [1, 1, 1, 0]),
        (2, [BLANK, LOST, S, G], Category.GENERIC, [-1, None, 1, 1]),  # those without a verdict support nothing
        (3, [S, G], Category.GENERIC, [1, 1]),
        (3, [S, W], Category.ABSTAIN, [1, 0]),
        (2, [W], Category.ABSTAIN, [0]),
        (2, [BLANK, LOST], None, [-1, None]),
    ],
)
def test_support(support: int, group: list[Member], level: Category | None, expected: list[float | None]) -> None:
    assert reference_level(group, support) == level
    assert rewards(group, support=support) == expected


@given(groups, st.integers(1, 12))
def test_the_level_is_the_best_that_enough_members_reach(group: list[Member], support: int) -> None:
    scored = [member.category for member in group if isinstance(member, Verdict)]
    reached = [level for level in Category if sum(category >= level for category in scored) >= support]
    level = min(max([*reached, Category.ABSTAIN]), Category.SPECIFIC)
    for member, reward in zip(group, rewards(group, support=support), strict=True):
        if isinstance(member, Verdict) and len(scored) >= support:
            assert reward == float(member.category >= level)
        elif isinstance(member, Verdict):
            assert reward == float(member.category is not Category.WRONG)


@given(groups)
def test_a_support_of_one_is_the_papers_rule(group: list[Member]) -> None:
    assert rewards(group, support=1) == rewards(group)


@given(groups, st.integers(1, 12))
def test_more_support_asks_for_no_more(group: list[Member], support: int) -> None:
    loose, strict = rewards(group, support=support + 1), rewards(group, support=support)
    assert all(one == other or (one, other) == (1, 0) for one, other in zip(loose, strict, strict=True))


@given(st.data(), groups, st.integers(1, 12))
def test_order_and_lost_members_do_not_matter_with_support(
    data: st.DataObject, group: list[Member], support: int
) -> None:
    order = data.draw(st.permutations(range(len(group))))
    shuffled = [group[index] for index in order]
    place = data.draw(st.integers(0, len(group)))
    joined = rewards([*shuffled[:place], LOST, *shuffled[place:]], support=support)
    assert joined[:place] + joined[place + 1 :] == [rewards(group, support=support)[index] for index in order]


def test_load_by_name_and_path() -> None:
    assert load("dynamic") is rewards
    assert load("speciarl.reward.dynamic:rewards") is rewards


@pytest.mark.parametrize("name", ["dynamite", "no_such_package:f", "speciarl.reward.dynamic:nothing", ":", ""])
def test_an_unknown_reward_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(ValueError, match="no group reward") as caught:
        load(name)
    assert "\n" not in str(caught.value)


def test_only_functions_are_rewards() -> None:
    with pytest.raises(ValueError, match="is no function"):
        load("speciarl.reward.member:UNPARSABLE_REWARD")
