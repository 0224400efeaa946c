"""What is said of batch sizes that were tried without a run: one sentence of advice, and notes."""

from __future__ import annotations

from batchscope.analysis.sizing import FAST, MARGIN, PAYS, Sizing
from batchscope.analysis.words import Figure, Sentence, listed, of_quantity, percent
from batchscope.records import MemoryUse

__all__ = ["advice", "memory_name", "size_text", "sizing_notes"]

_KINDS = {"resident": "memory", "address_space": "address space", "gpu": "GPU memory"}


def advice(found: Sizing) -> Sentence:
    """Says which batch sizes are possible and worth considering, with the figures."""
    smallest = found.rows[0]
    if found.largest is None or found.fastest is None or found.saturated is None:
        text = (
            f"Batch size {smallest.batch_size} does not fit in memory ({smallest.reason}); try smaller ones"
        )
        return Sentence("none_fits", f"{text}.", (("batch_size", smallest.batch_size),))
    parts = [_of_memory(found), _of_throughput(found, found.saturated, found.fastest)]
    if found.doubling_pays_to is not None:
        parts.append(_of_doubling(found, found.doubling_pays_to))
    figures: tuple[tuple[str, Figure], ...] = (
        ("largest_with_room", found.largest_with_room),
        ("largest", found.largest),
        ("too_large", found.too_large),
        ("fastest", found.fastest),
        ("saturated", found.saturated),
        ("doubling_pays_to", found.doubling_pays_to),
    )
    return Sentence("sizes", f"{'; '.join(parts)}.", figures)


def _of_memory(found: Sizing) -> str:
    largest = found.largest or 0
    beyond = (
        f"{found.too_large:,} does not fit"
        if found.too_large is not None
        else f"{found.bound:,} is {found.bound_by}; none above it was tried"
    )
    if found.largest_with_room is None:
        use = found.row(largest).memory
        why = (
            "nobody knows how much memory there is"
            if use is None or use.limit is None
            else f"none takes less than {percent(MARGIN)} of the memory"
        )
        return f"Batch size {largest:,} is the largest that was trained with ({beyond}), but {why}"
    room = _of_limit(found.row(found.largest_with_room).memory)
    if found.largest_with_room == largest:
        return f"Batch size {largest:,} was trained with and leaves room, at {room} ({beyond})"
    return (
        f"Batch size {found.largest_with_room:,} is the largest within {percent(MARGIN)} of the memory, "
        f"at {room} ({largest:,} was trained with, too, at {_of_limit(found.row(largest).memory)}; {beyond})"
    )


def _of_limit(use: MemoryUse | None) -> str:
    if use is None or use.limit is None:
        return "an unknown share"
    return f"{size_text(use.peak)} of {size_text(use.limit)} of {memory_name(use.kind)}"


def _of_throughput(found: Sizing, saturated: int, fastest: int) -> str:
    pace = found.row(saturated).pace
    best = found.row(fastest).pace
    if pace is None or best is None:
        raise TypeError("a batch size that was trained with must have a pace")
    grows = saturated == found.largest and saturated > found.rows[0].batch_size
    verb = "grows up to" if grows else "stops growing at"
    told = f"throughput {verb} {saturated:,} ({of_quantity(pace.median)} examples/s"
    if fastest != saturated:
        told += f", within {percent(1 - FAST)} of the {of_quantity(best.median)} at {fastest:,}"
    if found.perhaps_saturated:
        told += f"; by the spread of the blocks perhaps at {found.perhaps_saturated[0]:,} already"
    return f"{told})"


def _of_doubling(found: Sizing, size: int) -> str:
    fits = {row.batch_size: row for row in found.rows if row.fits}
    if 2 * size not in fits:
        return f"each doubling up to {size:,} pays"
    told = "pays no more from" if size > found.rows[0].batch_size else "does not pay from"
    return (
        f"doubling {told} {size:,} on: to {2 * size:,} it multiplies throughput by "
        f"{fits[2 * size].growth:.2f} (perfect is 2, and from {PAYS:g} on it pays)"
    )


def sizing_notes(found: Sizing) -> tuple[Sentence, ...]:
    """What must be known to trust the figures."""
    notes = [
        Sentence(
            "one_worker",
            f"Measured with one worker of {dict(found.facts).get('threads', '?')} threads, and whatever else "
            "the machine was doing; trials that run side by side share its cores and its memory.",
        ),
        Sentence("no_accuracy", "What a batch size does to accuracy is not told; that takes a run."),
    ]
    kinds = {row.memory.kind for row in found.rows if row.memory is not None}
    if kinds - {"resident"}:
        nearest = listed(sorted(map(memory_name, kinds)))
        notes.append(Sentence("judged_by", f"What is nearest to its limit here is {nearest}."))
    return tuple(notes)


def memory_name(kind: str) -> str:
    """Of a kind of memory."""
    return _KINDS[kind]


def size_text(size: int) -> str:
    """Bytes in MB, or in GB from a thousand of these on; a MB is 10^6 bytes."""
    return f"{size / 1e6:,.0f} MB" if size < 1e9 else f"{size / 1e9:.2f} GB"
