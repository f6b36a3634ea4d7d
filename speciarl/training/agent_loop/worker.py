"""Agent-loop worker: veRL's, rewarding whole groups.

veRL computes a rollout's reward before it stores the trajectory, one rollout at a time. Our reward needs the
whole group, and veRL runs all rollouts of a prompt in one worker process, so a barrier in that process is all it
takes: each rollout's verdict is asked for the moment it ends, while its siblings still generate, and when the last
verdict is in, every reward of the group is final before any trajectory is stored.

With ``speciarl.training.late_verdicts`` trajectories do not wait for that: the trainer comes for their rewards when it
cannot go on without (`../trainer/late_rewards.py`).
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from verl.experimental.agent_loop.agent_loop import DictConfigWrap
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ
from verl.utils.rollout_trace import rollout_trace_attr

from speciarl import answer, reward, verifier_server
from speciarl.config import load
from speciarl.reward.barrier import GroupUnderQuorum, RewardGroup, RolloutUnscorable
from speciarl.reward.noise import RolloutIdentity
from speciarl.training.agent_loop.late_scores import PENDING, LateScores, Score
from speciarl.training.agent_loop.prompt_group import OpenGroup
from speciarl.training.agent_loop.seeding import seeded
from speciarl.training.agent_loop.shared_prompt import FEATURES, GroupRollout, ImageFeatures
from speciarl.training.observability.rollout_samples import SampleBook, SampledGroup
from speciarl.training.observability.rollout_stats import RolloutStats, merge
from speciarl.training.observability.stall_timer import Phase, SilenceClock, WaitClock
from speciarl.training.preflight.probabilities import check_probabilities
from speciarl.training.reward_info import reward_extra_info, sample_id
from speciarl.verdict import Judgement, Pair, Unscorable, Verdict

logger = logging.getLogger(__name__)

SINGLE_TURN = "single_turn_agent"
"""veRL's name of the agent loop whose work we share among the rollouts of a group; others run as they are."""

STORED_COLUMNS = ("uid", "session_id", "global_steps", "data_source", "reward_model")
"""What veRL's trainer reads of a prompt's columns once its rewards are known. Storing the others with every rollout,
the image among them, costs more than generating at laptop scale."""


_StockWorker: Any = AgentLoopWorkerTQ.__ray_actor_class__  # the plain class behind veRL's Ray actor


class GroupAgentLoopWorker(_StockWorker):
    """veRL's worker with a verifier and one reward barrier per open prompt."""

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

    async def start_verifier(self) -> None:
        """Open the verifier and run its probe; raises VerifierStartError, or ConfigError for a judge that the reward
        cannot be made from."""
        await self._verifier.start()
        check_probabilities(self._settings, self._reward, self._verifier)

    async def drain_stats(self, validate: bool = False) -> tuple[RolloutStats, dict[str, float]]:
        """The counters of training or validation since the last such call, and the verifier's totals since its
        start."""
        drained, self._stats[validate] = self._stats[validate], RolloutStats()
        drained.silent_s = self._silence.seconds()
        waits = self._clocks[validate].drain()
        drained.waited_s, drained.judging_s = waits.waited_s, waits.judging_s
        return drained, self._verifier.stats()

    async def drain_samples(self) -> list[SampledGroup]:
        """The groups kept for the sample page since the last call."""
        return self._samples.drain()

    async def stats_so_far(self) -> RolloutStats:
        """The counters of training and validation since their last drain, which go on."""
        total = merge(self._stats.values())
        total.silent_s = self._silence.seconds()
        return total

    async def late_scores(self) -> dict[str, Score | None]:
        """What the rollouts earned whose trajectories were stored without since the last call, by
        ``{uid}_{session}``, once all their verdicts are in; None for one that earned nothing that may be learnt
        from."""
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
        barrier = RewardGroup(size, self._reward)
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
                await late.finish()
            expiry.cancel()
            await self._close(group)

    async def _close(self, group: OpenGroup) -> None:
        """All that will be known of a group is."""
        del self._groups[group.uid]
        try:
            if group.validate or not group.barrier.done:
                return
            outcome = await group.barrier.outcome()
            self._stats[group.validate].close(outcome, under_quorum=outcome.scored < group.quorum)
            if group.draft is not None:
                self._samples.keep(group.draft.finish(outcome, group.rollout and group.rollout.image))
        finally:
            if group.late is not None:
                group.late.close()

    def _overlong_term(self, tokens: int, validate: bool) -> float:
        overlong = self._settings.reward.overlong
        if overlong is None or validate:
            return 0.0
        return overlong.term(tokens, int(self.config.actor_rollout_ref.rollout.response_length))

    def _group_rollout(self) -> GroupRollout:
        return GroupRollout(
            trainer_config=DictConfigWrap(self.config),
            server_manager=self.llm_client,
            tokenizer=self.tokenizer,
            processor=self.processor,
            dataset_cls=self.dataset_cls,
            data_config=DictConfigWrap(self.config.data),
            hf_model_type=self.hf_model_type,
        )

    async def _run_agent_loop(self, sampling_params: dict[str, Any], trajectory: dict[str, Any], **kwargs: Any) -> Any:
        group, session = self._groups[kwargs["uid"]], kwargs["session_id"]
        task = asyncio.current_task()
        assert task is not None  # veRL starts every session as a task
        group.barrier.join(session, task.cancel)
        self._clocks[group.validate].enter((group.uid, session), Phase.GENERATING)
        params = seeded(sampling_params, self._settings.training.seed, group.identity, session)
        try:
            if group.rollout is None:
                return await super()._run_agent_loop(params, trajectory, **kwargs)
            return await self._run_shared(group.rollout, params, trajectory, **kwargs)
        except BaseException as error:
            self._count_error(group, error)
            raise
        finally:
            if not group.is_late(session):
                self._leave(group, session)

    def _count_error(self, group: OpenGroup, error: BaseException) -> None:
        """A session has ended in an error; cancellation is how one of a group that expired does."""
        if not isinstance(error, RolloutUnscorable | GroupUnderQuorum):  # these are counted by their causes
            self._stats[group.validate].fail(error)

    def _leave(self, group: OpenGroup, session: int) -> None:
        """A session has ended, in whatever way: nobody is to wait for it."""
        self._clocks[group.validate].leave((group.uid, session))
        group.barrier.fail(session)

    async def _run_shared(
        self,
        rollout: GroupRollout,
        sampling_params: dict[str, Any],
        trajectory: dict[str, Any],
        *,
        agent_name: str,
        trace: bool = True,
        **kwargs: Any,
    ) -> Any:
        """As veRL's `_run_agent_loop`, with the group's agent loop in place of a new one."""
        with rollout_trace_attr(
            step=trajectory["step"],
            sample_index=trajectory["sample_index"],
            rollout_n=trajectory["rollout_n"],
            validate=trajectory["validate"],
            name="agent_loop",
            trace=trace,
        ):
            output = await rollout.run(sampling_params, **kwargs)
            return await self._agent_loop_postprocess(output, trajectory["validate"], **kwargs)

    async def _agent_loop_postprocess(self, output: Any, validate: bool, **kwargs: Any) -> None:
        stored = {name: kwargs[name] for name in STORED_COLUMNS if name in kwargs}
        await super()._agent_loop_postprocess(output, validate, **stored)

    def _compute_multi_modal_inputs(self, output: Any, input_ids: Any) -> dict[str, Any]:
        shared: ImageFeatures | None = (output.multi_modal_data or {}).get(FEATURES)
        if shared is not None and shared.value is not None:
            return dict(shared.value)  # veRL takes entries out
        computed: dict[str, Any] = super()._compute_multi_modal_inputs(output, input_ids)
        if shared is not None:
            shared.keep(computed)
        return computed

    async def _compute_score(self, outputs: list[Any], kwargs: dict[str, Any]) -> None:
        group, session, final = self._groups[kwargs["uid"]], kwargs["session_id"], outputs[-1]
        if group.late is not None:
            scoring = group.late.start(session, self._score(group, session, final.response_ids))
            scoring.add_done_callback(partial(self._late_score_ended, group, session))
            group.barrier.join(session, scoring.cancel)
            final.reward_score, final.extra_fields["reward_extra_info"] = PENDING, {}
            await asyncio.sleep(0)  # lets the verdict be asked for before the work of storing
            return
        score = await self._score(group, session, final.response_ids)
        final.reward_score, final.extra_fields["reward_extra_info"] = score.reward, score.record
        final.metrics.compute_score = score.seconds

    def _late_score_ended(self, group: OpenGroup, session: int, scoring: "asyncio.Task[Score]") -> None:
        error = asyncio.CancelledError() if scoring.cancelled() else scoring.exception()
        if error is not None:
            self._count_error(group, error)
            logger.error("rollout %s_%d has no score", group.uid, session, exc_info=error)  # as veRL does of a session
        self._leave(group, session)

    async def _score(self, group: OpenGroup, session: int, response_ids: Sequence[int]) -> Score:
        """Judge an answer, wait for its siblings, and say what it earned.

        Raises RolloutUnscorable or GroupUnderQuorum when that is nothing one could learn from.
        """
        stats, clock = self._stats[group.validate], self._clocks[group.validate]
        clock.enter((group.uid, session), Phase.JUDGING)
        started = time.time()
        response = self.tokenizer.decode(response_ids, skip_special_tokens=True)
        text = answer.parse(response)
        member: reward.Member = reward.Unparsable()
        if text is not None:
            member = await self._verify(Pair(group.ground_truth, text))
        clock.enter((group.uid, session), Phase.JUDGED)
        stats.judge_seconds += time.time() - started
        stats.count(member)
        seen = member
        if not group.validate:
            seen = self._settings.reward.noise.apply(member, RolloutIdentity(group.image, group.step, session))
        if group.draft is not None:
            group.draft.note(session, response, text, member, seen)
        group.barrier.arrive(session, seen)
        outcome = await group.barrier.outcome()
        clock.leave((group.uid, session))
        if isinstance(member, Unscorable):
            raise RolloutUnscorable(f"no verdict for rollout {session}: {member.reason.value} ({member.detail})")
        if outcome.scored < group.quorum:
            raise GroupUnderQuorum(f"only {outcome.scored} of {len(outcome.rewards)} rollouts were scored")
        earned = outcome.rewards[session]
        if earned is None:  # the group expired before this verdict came in, or a custom reward gave none
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
        )
        return Score(earned + penalty, record, time.time() - started)

    async def _verify(self, pair: Pair) -> Judgement:
        self._silence.ask()
        judgement: Judgement | None = None
        try:
            judgement = await self._verifier.verify(pair)
        finally:
            self._silence.answer(judgement.source if isinstance(judgement, Verdict) else None)
        return judgement
