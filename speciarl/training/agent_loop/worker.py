"""Agent-loop worker: veRL's, with rewards that depend on the whole group of a prompt.

veRL computes a rollout's reward before it stores the trajectory, one rollout at a time. Our reward needs the
whole group, and veRL runs all rollouts of a prompt in one worker process, so a barrier in that process is enough:
each rollout is judged the moment it ends, while its siblings still generate, and no trajectory is stored before the
last verdict is in and every reward of the group is final.

With ``speciarl.training.late_verdicts`` trajectories are stored at once, and the trainer fetches their rewards before
it computes advantages (`trainer/late_rewards.py`).
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from speciarl import answer, reward, verifier_server
from speciarl.config import load
from speciarl.reward.barrier import GroupUnderQuorum, RewardBarrier, RolloutUnscorable
from speciarl.reward.noise import RolloutIdentity
from speciarl.training.agent_loop.late_scores import PENDING, LateScores, Score
from speciarl.training.agent_loop.prompt_group import OpenGroup
from speciarl.training.agent_loop.seeding import seeded
from speciarl.training.agent_loop.shared_prompt import SINGLE_TURN, SharedPromptWorker
from speciarl.training.observability.rollout_samples import SampleBook, SampledGroup
from speciarl.training.observability.rollout_stats import RolloutStats, merge
from speciarl.training.observability.stall_timer import Phase, SilenceClock, WaitClock
from speciarl.training.preflight.probabilities import check_probabilities
from speciarl.training.reward_info import reward_extra_info, sample_id
from speciarl.verdict import Judgement, Pair, Unscorable, Verdict

logger = logging.getLogger(__name__)


class GroupAgentLoopWorker(SharedPromptWorker):
    """Agent-loop worker with a verifier and one reward barrier per prompt that is in flight."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._settings = load(self.config)
        self._reward = reward.load(self._settings.reward.name, self._settings.reward.params)
        self._verifier = verifier_server.build(self._settings.verifier)
        self._groups: dict[str, OpenGroup] = {}
        self._late: dict[str, LateScores] = {}
        # Apart for training (False) and validation (True): in asynchronous modes the two overlap.
        self._stats = {validate: RolloutStats() for validate in (False, True)}
        self._clocks = {validate: WaitClock() for validate in (False, True)}
        self._silence = SilenceClock()
        training = self._settings.training
        self._samples = SampleBook(training.samples_every, training.samples_per_step)

    async def start_verifier(self, key: str | None = None) -> None:
        """Connect to the verifier, with a service's `key` if it has one; called once, before the first prompt.

        Raises VerifierStartError, or ConfigError for a judge whose verdicts lack what the reward is computed from.
        """
        if key is not None:  # the constructor's verifier could not read it, where the key file is on another node
            self._verifier = verifier_server.build(self._settings.verifier, key)
        await self._verifier.start()
        check_probabilities(self._settings, self._reward, self._verifier)

    async def drain_stats(self, validate: bool = False) -> tuple[RolloutStats, dict[str, float]]:
        """Rollout counters of training or validation since the last such call, and the verifier's totals since its
        start."""
        drained, self._stats[validate] = self._stats[validate], RolloutStats()
        drained.silent_s = self._silence.seconds()
        waits = self._clocks[validate].drain()
        drained.waited_s, drained.judging_s = waits.waited_s, waits.judging_s
        return drained, self._verifier.stats()

    async def drain_samples(self) -> list[SampledGroup]:
        """Groups kept for the sample page since the last call."""
        return self._samples.drain()

    async def stats_so_far(self) -> RolloutStats:
        """Rollout counters of training and validation since their last drain; nothing is reset."""
        total = merge(self._stats.values())
        total.silent_s = self._silence.seconds()
        return total

    async def late_scores(self) -> dict[str, Score | None]:
        """Scores, by ``{uid}_{session}``, of the trajectories that were stored without one since the last call.

        Waits until all their groups have ended. None for a rollout without a score, which nothing may be learnt from.
        """
        late, self._late = self._late, {}
        groups = {uid: await scores.final() for uid, scores in late.items()}
        return {f"{uid}_{session}": score for uid, scores in groups.items() for session, score in scores.items()}

    async def close_verifier(self) -> None:
        """Release the verifier's connections."""
        await self._verifier.aclose()

    async def _run_prompt(
        self, prompt: dict[str, Any], sampling_params: dict[str, Any], trajectory: dict[str, Any], trace: bool = False
    ) -> None:
        rollout, validate = self.config.actor_rollout_ref.rollout, trajectory["validate"]
        size = int(prompt.get("__rollout_n__", rollout.val_kwargs.n if validate else rollout.n))
        quorum = 1 if validate else min(self._settings.reward.quorum, size)
        uid = prompt["uid"]
        ground_truth, data_source = prompt["reward_model"]["ground_truth"], str(prompt.get("data_source", "unknown"))
        extra_info, step = prompt.get("extra_info") or {}, int(trajectory.get("step", 0))
        # Before veRL's method, which starts the sessions and takes ``__rollout_n__`` out of the prompt.
        barrier = RewardBarrier(size, self._reward)
        late = None if validate or not self._settings.training.late_verdicts else LateScores()
        group = self._groups[uid] = OpenGroup(
            uid,
            barrier,
            quorum,
            ground_truth,
            data_source,
            extra_info,
            validate,
            step,
            # veRL draws validation uids at random, while `PromptUids` makes those of training repeatable.
            identity=f"validation/{prompt.get('index')}" if validate else uid,
            rollout=self._group_rollout() if prompt["agent_name"] == SINGLE_TURN else None,
            draft=None if validate else self._samples.draft(step, ground_truth, data_source, sample_id(extra_info)),
            late=late,
        )
        if late is not None:
            self._late[uid] = late
        expiry = asyncio.get_running_loop().call_later(self._settings.reward.group_deadline_s, barrier.expire)
        try:
            await super()._run_prompt(prompt, sampling_params, trajectory=trajectory, trace=trace)
        finally:
            if late is not None:
                await late.wait()
            expiry.cancel()  # not before: the group's deadline holds for its late verdicts as well
            await self._close_group(group)

    async def _close_group(self, group: OpenGroup) -> None:
        """Count a group that has ended, hand over its sample and let its late scores be fetched."""
        del self._groups[group.uid]
        try:
            if group.validate or not group.barrier.done:
                return
            outcome = await group.barrier.outcome()
            self._stats[group.validate].record_group(outcome, under_quorum=outcome.scored < group.quorum)
            if group.draft is not None:
                self._samples.add(group.draft.finish(outcome, group.rollout and group.rollout.image))
        finally:
            if group.late is not None:
                group.late.close()

    def _overlong_term(self, tokens: int, validate: bool) -> float:
        overlong = self._settings.reward.overlong
        if overlong is None or validate:
            return 0.0
        return overlong.term(tokens, int(self.config.actor_rollout_ref.rollout.response_length))

    async def _run_agent_loop(self, sampling_params: dict[str, Any], trajectory: dict[str, Any], **kwargs: Any) -> Any:
        group, session = self._groups[kwargs["uid"]], kwargs["session_id"]
        task = asyncio.current_task()
        assert task is not None  # veRL starts every session as a task, and the barrier cancels that task
        group.barrier.register(session, task.cancel)
        self._clocks[group.validate].begin((group.uid, session), Phase.GENERATING)
        params = seeded(sampling_params, self._settings.training.seed, group.identity, session)
        try:
            if group.rollout is None:
                return await super()._run_agent_loop(params, trajectory, **kwargs)
            return await self._run_shared(group.rollout, params, trajectory, **kwargs)
        except BaseException as error:
            self._record_error(group, error)
            raise
        finally:
            # A late score is still on its way when the session ends; `_late_score_ended` ends it then.
            if not group.is_late(session):
                self._end_session(group, session)

    def _record_error(self, group: OpenGroup, error: BaseException) -> None:
        """Count a session that ended in an error; stragglers of a group past its deadline end in CancelledError."""
        # These two are counted already, as an unscorable rollout and as a group under quorum.
        if not isinstance(error, RolloutUnscorable | GroupUnderQuorum):
            self._stats[group.validate].record_failure(error)

    def _end_session(self, group: OpenGroup, session: int) -> None:
        """Take a session that has ended, with or without a score, off the clock and the barrier."""
        self._clocks[group.validate].end((group.uid, session))
        group.barrier.deregister(session)

    async def _compute_score(self, outputs: list[Any], kwargs: dict[str, Any]) -> None:
        # veRL calls this before it stores a trajectory; an error raised here is what keeps it from being stored.
        group, session, final = self._groups[kwargs["uid"]], kwargs["session_id"], outputs[-1]
        if group.late is not None:
            scoring = group.late.start(session, self._score(group, session, final.response_ids))
            scoring.add_done_callback(partial(self._late_score_ended, group, session))
            group.barrier.register(session, scoring.cancel)  # past the deadline only the score is given up
            # A reward must be stored now: without one veRL writes no `rm_scores`, the column that is filled in later.
            final.reward_score, final.extra_fields["reward_extra_info"] = PENDING, {}
            await asyncio.sleep(0)  # lets the scoring task send its pair before storing keeps the event loop busy
            return
        score = await self._score(group, session, final.response_ids)
        final.reward_score, final.extra_fields["reward_extra_info"] = score.reward, score.record
        final.metrics.compute_score = score.seconds

    def _late_score_ended(self, group: OpenGroup, session: int, scoring: "asyncio.Task[Score]") -> None:
        error = asyncio.CancelledError() if scoring.cancelled() else scoring.exception()
        if error is not None:
            self._record_error(group, error)
            logger.error("rollout %s_%d has no score", group.uid, session, exc_info=error)  # as veRL does of a session
        self._end_session(group, session)

    async def _score(self, group: OpenGroup, session: int, response_ids: Sequence[int]) -> Score:
        """The score of a response: its answer is judged at once, its reward known when all siblings have arrived.

        Raises RolloutUnscorable without a verdict or a reward, GroupUnderQuorum when too few siblings were scored.
        """
        stats, clock = self._stats[group.validate], self._clocks[group.validate]
        clock.begin((group.uid, session), Phase.JUDGING)
        started = time.time()
        response = self.tokenizer.decode(response_ids, skip_special_tokens=True)
        text = answer.parse(response)
        member: reward.Member = reward.Unparsable()
        if text is not None:
            member = await self._verify(Pair(group.ground_truth, text))
        clock.begin((group.uid, session), Phase.JUDGED)
        stats.judge_seconds += time.time() - started
        stats.record_rollout(member)
        seen = member
        if not group.validate:
            seen = self._settings.reward.noise.apply(member, RolloutIdentity(group.image, group.step, session))
        if group.draft is not None:
            group.draft.record(session, response, text, member, seen)
        group.barrier.arrive(session, seen)
        outcome = await group.barrier.outcome()
        clock.end((group.uid, session))
        if isinstance(member, Unscorable):
            raise RolloutUnscorable(f"no verdict for rollout {session}: {member.reason.value} ({member.detail})")
        if outcome.scored < group.quorum:
            raise GroupUnderQuorum(f"only {outcome.scored} of {len(outcome.rewards)} rollouts were scored")
        earned = outcome.rewards[session]
        if earned is None:  # the verdict came after the group's deadline, or a custom reward gave none
            raise RolloutUnscorable(f"rollout {session} has a verdict but no reward")
        penalty = self._overlong_term(len(response_ids), group.validate)
        record = reward_extra_info(
            member,
            text,
            outcome,
            group.data_source,
            group.extra_info,
            seen=seen,
            group_reward=earned,
            overlong_penalty=penalty,
            sampled_step=None if group.validate else group.step,
        )
        return Score(earned + penalty, record, time.time() - started)

    async def _verify(self, pair: Pair) -> Judgement:
        self._silence.begin_wait()
        judgement: Judgement | None = None
        try:
            judgement = await self._verifier.verify(pair)
        finally:
            self._silence.end_wait(judgement.source if isinstance(judgement, Verdict) else None)
        return judgement
