"""A link protocol without messages: both ends know a schedule that has a time bin for each memory."""

from multiplane.api.policy import LinkFacts, LinkHost


class TimeBins:
    def __init__(self, facts: LinkFacts, host: LinkHost) -> None:
        self.facts, self.host = facts, host
        self.heard_ps = [facts.photon_ps + herald_ps for herald_ps in facts.herald_ps]
        self.cycle_ps = max(self.heard_ps) + facts.reset_ps
        self.waiting: tuple[list[int], list[int]] = ([], [])
        self.sent_ps: dict[tuple[int, int], int] = {}

    def raw(self, end: int, slot: int) -> None:
        self.waiting[end].append(slot)
        if all(self.waiting):  # the memories that wait longest try together, in the bin of the first
            pair = (self.waiting[0].pop(0), self.waiting[1].pop(0))
            now_ps, tries = self.host.now_ps(), self.host.trials(self.facts.success_probability)
            wait_ps = (pair[0] * self.cycle_ps // self.facts.memories - now_ps) % self.cycle_ps
            sent_ps = self.sent_ps[pair] = now_ps + wait_ps + (tries - 1) * self.cycle_ps
            self.host.at_ps(sent_ps + min(self.heard_ps), self.herald, pair, sent_ps)

    def withdraw(self, end: int, slot: int) -> None:
        self.waiting[end][:] = [one for one in self.waiting[end] if one != slot]
        for pair in [pair for pair in self.sent_ps if pair[end] == slot]:
            del self.sent_ps[pair]
            self.raw(1 - end, pair[1 - end])

    def herald(self, pair: tuple[int, int], sent_ps: int) -> None:
        if self.sent_ps.get(pair) == sent_ps:
            del self.sent_ps[pair]
            self.host.born(pair, sent_ps, (sent_ps + self.heard_ps[0], sent_ps + self.heard_ps[1]))


LINK_PROTOCOLS = {"time-bins": TimeBins}
