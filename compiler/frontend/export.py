"""A torch module's functional graph, by torch.export, in the mode the module is in."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.export.graph_signature import OutputKind
from torch.fx.proxy import TracerBase

from ree.compiler.frontend.aten.recurrent import OpenTime
from ree.compiler.frontend.branches import refuse_branches
from ree.compiler.frontend.caches import caches_as_tuples
from ree.compiler.frontend.decompositions import decompositions
from ree.compiler.frontend.effects import refuse_effects
from ree.compiler.frontend.follow import FORWARD, Pass, changing, followed, settled
from ree.compiler.frontend.hints import hint
from ree.compiler.frontend.origins import origin_of
from ree.compiler.frontend.quiet import one_at_a_time, quiet
from ree.compiler.frontend.source_lines import returned_at, used_at
from ree.compiler.frontend.types_torch_lacks import refuse_lacking
from ree.compiler.frontend.watch import at, is_users, line_of
from ree.errors import CaptureError, ReeError
from ree.float_mode import clean_floats

MUTATIONS = {
    OutputKind.BUFFER_MUTATION: "buffer",
    OutputKind.PARAMETER_MUTATION: "parameter",
    OutputKind.USER_INPUT_MUTATION: "input",
}


@dataclass(frozen=True)
class Exported:
    """The functional fx graph of a module; `changed`: the line that changes a tensor in place, by name."""

    program: torch.export.ExportedProgram
    changed: Mapping[str, str]


@clean_floats
def export(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic_shapes: Any = None,
    gradients: bool = False, model: torch.nn.Module | None = None,
    functions: tuple[Callable[..., Any], ...] = (), rearranged: bool = False, required: Collection[str] = (),
) -> Exported:  # fmt: skip
    """The graph of a module as it stands; what follows `gradients` as in `followed`. CaptureError."""

    passes: list[Pass] = []

    def once(allowed: Mapping[str, Any] | None) -> tuple[torch.export.ExportedProgram, Pass]:
        with (
            one_at_a_time(), quiet(), lines_of_users(), caches_as_tuples(module), OpenTime(),
            torch.inference_mode(False),
            torch.set_grad_enabled(gradients),
            followed(module, gradients, model, functions, rearranged, allowed, required) as seen,
        ):  # fmt: skip
            passes.append(seen)
            program = torch.export.export(
                module, args, kwargs, strict=False, dynamic_shapes=dynamic_shapes
            )
            refuse_effects(program.graph_module)
            refuse_lacking(program.graph_module)
            _inline_regions(program.graph_module)
            _keep_aliases(program.graph_module)
            _convert_before_copies(program.graph_module)
            if gradients:
                refuse_branches(program.graph_module)
            return program.run_decompositions(decompositions()), seen

    try:
        program, seen = once(None)
    except Exception as e:  # torch.export raises many unrelated types for what a user's model does
        link: BaseException | None = e
        while link is not None:
            if isinstance(link, ReeError):
                raise link from None
            link = link.__cause__ or link.__context__
        line = (
            line_of(e, FORWARD) or _line_of_node(e) or (passes[-1].narrowed() if passes else "")
            or returned_at(module.forward)
        )  # fmt: skip
        raise CaptureError(
            f"cannot capture the model as one graph{at(line)}: {_reason(e)}", hint(e, module)
        ) from e
    if seen.attributes:  # harmless if the next pass, which finds them, is the same one
        what, (*_, line) = next(iter(seen.attributes.items()))
        try:
            with settled(seen):
                again, after = once(seen.attributes)
        except Exception as e:
            raise changing(what, line) from e
        moving = any(not isinstance(v, torch.Tensor) for _, _, v, _ in after.attributes.values())
        if moving or str(again.graph) != str(program.graph):
            raise changing(what, line)
    return Exported(program, seen.lines)


def _line_of_node(e: BaseException) -> str:
    """The user's line of the graph's node that torch was at when it failed, or else of one that it names."""
    found, named, trace = "", "", e.__traceback__
    words = set(re.findall(r"\w+", str(e)))
    while trace is not None:
        for v in trace.tb_frame.f_locals.values():
            if isinstance(v, torch.fx.Node):
                found = origin_of(v).location or found
            graph = getattr(getattr(v, "aten", v), "gm", v)  # what torch wraps a graph in meanwhile
            for node in graph.graph.nodes if isinstance(graph, torch.fx.GraphModule) else ():
                if node.name.removeprefix("c_") in words:  # of a constant
                    named = named or used_at(node)
        trace = trace.tb_next
    return found or named


def _inline_regions(graph_module: torch.fx.GraphModule) -> None:
    """Calls of regions with or without gradients, whose values are detached already, become what they call:
    later passes would lose the lines of what is in them."""
    graph = graph_module.graph
    for node in list(graph.nodes):
        if node.target is not torch.ops.higher_order.wrap_with_set_grad_enabled:
            continue
        _, body, *given = node.args
        region = graph_module.get_submodule(str(body.target))
        _inline_regions(region)
        places = [n for n in region.graph.nodes if n.op == "placeholder"]
        with graph.inserting_before(node):
            made = graph.graph_copy(region.graph, dict(zip(places, given, strict=True)))
        for user in list(node.users):
            user.replace_all_uses_with(made[user.args[1]])
            graph.erase_node(user)
        graph.erase_node(node)
        if not body.users:
            graph.erase_node(body)
    graph_module.recompile()


def _keep_aliases(graph_module: torch.fx.GraphModule) -> None:
    """x[...] is an alias, through which gradients flow; what is one after decompositions was a detach."""
    for part in graph_module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            if node.target is torch.ops.aten.alias.default:
                node.target = torch.ops.aten.view.default
                node.args = (node.args[0], list(node.meta["val"].shape))


def _convert_before_copies(graph_module: torch.fx.GraphModule) -> None:
    """What copy_ converts and repeats is converted and repeated before it: torch takes the source of the last
    copy into a buffer for the buffer's new value as it is."""
    aten = torch.ops.aten
    for part in graph_module.modules():
        for node in list(part.graph.nodes) if isinstance(part, torch.fx.GraphModule) else ():
            if node.target is not aten.copy_.default:
                continue
            place, source, *rest = node.args
            to, of = (n.meta["val"] for n in (place, source))
            steps: list[tuple[Any, Any]] = []
            if of.dtype != to.dtype:
                steps.append((aten.to.dtype, to.dtype))
            if of.shape != to.shape and all(type(d) is int for d in to.shape):
                steps.append((aten.expand.default, list(to.shape)))
            for target, argument in steps:
                with part.graph.inserting_before(node):
                    source = part.graph.call_function(target, (source, argument))
                source.meta = dict(node.meta)  # its line
            node.args = (place, source, *rest)


@contextmanager
def lines_of_users() -> Iterator[None]:
    """Nodes remember the innermost line of the user's code; torch keeps those in functions called forward."""
    theirs = TracerBase._filter_traceback_frames

    def innermost(_: TracerBase, stack: traceback.StackSummary) -> traceback.StackSummary:
        return traceback.StackSummary.from_list([f for f in stack if is_users(f.filename)][-1:])

    TracerBase._filter_traceback_frames = innermost
    try:
        yield
    finally:
        TracerBase._filter_traceback_frames = theirs


@contextmanager
def without_gradients(module: torch.nn.Module) -> Iterator[frozenset[str]]:
    """No gradients are taken; the flags come back. The names of parameters that had one."""
    flags = [(p, p.requires_grad) for p in module.parameters()]
    named = frozenset(n for n, p in module.named_parameters() if p.requires_grad)
    try:
        for p, _ in flags:
            p.requires_grad_(False)
        yield named
    finally:
        for p, flag in flags:
            p.requires_grad_(flag)


# what torch adds for its own developers
_NOISE = re.compile(
    r"For more information|TORCH_LOGS|TORCHDYNAMO|For extended logs|If you suspect|C\+\+|Caused by|"
    r"For more debugging|consider using data-dependent|The following call|guard_or_false"
)

_ADVICE = re.compile(
    "The error above occurred|The following call raised|This typically means|If this type holds"
)


def _reason(e: BaseException) -> str:
    """torch's message as one line: its first sentences, its first condition, its suggestion."""
    text = _ADVICE.split(str(e))[0]
    text = re.sub(r"For more information, run with TORCH_LOGS=\S+", "", text)
    lines = [x.strip() for x in text.splitlines() if x.strip() and not _NOISE.search(x)]
    if not lines:
        return type(e).__name__
    start = lines.index("Suggested fixes:") if "Suggested fixes:" in lines else len(lines)
    said = lines[:1] + [x.removeprefix("- ") for x in lines[1:start] if x.startswith("- ")][:2]
    if start < len(lines):
        said.append("suggested: " + ", ".join(lines[start + 1 : start + 5]))
    return "; ".join(x[:400].rstrip(" .") for x in said)[:1000]
