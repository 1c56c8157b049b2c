"""A link protocol without messages: both ends know a schedule that has a time bin for each memory."""

from multiplane.api.policy import LinkFacts, LinkHost


class TimeBins:
    def __init__(self, facts: LinkFacts, host: LinkHost) -> None:
        self.facts, self.host = facts, host
        self.heard_ps = (facts.photon_ps + facts.herald_ps[0], facts.photon_ps + facts.herald_ps[1])
        self.cycle_ps = max(self.heard_ps) + facts.reset_ps
        self.waiting: tuple[list[int], list[int]] = ([], [])
        self.trying: list[list[int]] = []

    def raw(self, end: int, slot: int) -> None:
        self.waiting[end].append(slot)
        if all(self.waiting):  # the memories that wait longest try together, in the bin of the first
            pair = [self.waiting[0].pop(0), self.waiting[1].pop(0)]
            self.trying.append(pair)
            bin_ps, now_ps = pair[0] * self.cycle_ps // self.facts.memories, self.host.now_ps()
            tries = self.host.trials(self.facts.success_probability)
            emitted_ps = now_ps + (bin_ps - now_ps) % self.cycle_ps + (tries - 1) * self.cycle_ps
            self.host.at_ps(emitted_ps + min(self.heard_ps), self.herald, pair, emitted_ps)

    def withdraw(self, end: int, slot: int) -> None:
        self.waiting[end][:] = [one for one in self.waiting[end] if one != slot]
        for pair in [pair for pair in self.trying if pair[end] == slot]:
            self.trying = [one for one in self.trying if one is not pair]
            self.raw(1 - end, pair[1 - end])

    def herald(self, pair: list[int], emitted_ps: int) -> None:
        if any(one is pair for one in self.trying):
            self.trying = [one for one in self.trying if one is not pair]
            self.host.born(
                (pair[0], pair[1]), emitted_ps, (emitted_ps + self.heard_ps[0], emitted_ps + self.heard_ps[1])
            )


LINK_PROTOCOLS = {"time-bins": TimeBins}
