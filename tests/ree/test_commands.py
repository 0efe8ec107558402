"""The table of commands: what each must have, its help, the arguments of actions, and who tests it."""

import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from ree.cli import job, main
from ree.cli.commands import COMMANDS
from ree.cli.grammar import Parser, make_parser

TESTS = Path(__file__).parents[1]
CLI = TESTS.parent / "ree" / "cli"
SHARED = {
    "commands", "exit_codes", "grammar", "loading", "metrics_shown", "output", "receipt_checked",
    "receipt_run", "refusals", "summary",
}  # fmt: skip


def complete(module, work):
    """Whether a command or an action has its help, its arguments and its work."""
    help = getattr(module, "HELP", "")
    return (isinstance(help, str) and bool(help) and not help.endswith(".")
            and callable(getattr(module, "add_arguments", None))
            and callable(getattr(module, work, None)))  # fmt: skip


def names_below(folder):
    return {
        p.stem for p in folder.iterdir() if p.stem[0] != "_" and (p.is_dir() or p.suffix == ".py")
    }


def test_every_module_is_a_command_or_shared_by_some():
    assert names_below(CLI) == {*COMMANDS, *SHARED}
    assert names_below(CLI / "job") == {*job.ACTIONS, "subject"}
    for name, module in COMMANDS.items():
        assert complete(module, "run"), name
        assert module.__name__ == f"ree.cli.{name}"
        assert module.__doc__.startswith(f"`ree {name}`"), name
    for name, module in job.ACTIONS.items():
        assert complete(module, "act"), name
        assert module.__name__ == f"ree.cli.job.{name}"


@pytest.mark.parametrize("without", ["HELP", "add_arguments", "run"])
def test_a_command_that_lacks_something_is_seen(without):
    planted = {"HELP": "do nothing", "add_arguments": lambda parser: None, "run": lambda args: 0}
    assert complete(SimpleNamespace(**planted), "run")
    planted.pop(without)
    assert not complete(SimpleNamespace(**planted), "run")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_how_it_is_called(name, capsys):
    assert main([name, "--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: ree {name} ")
    assert " ".join(COMMANDS[name].HELP.split()) in " ".join(said.split())
    assert main(["help", name]) == 0
    assert capsys.readouterr().out == said


@pytest.mark.parametrize("name", job.ACTIONS)
def test_the_help_of_an_action_has_its_own_options_alone(name, capsys):
    assert main(["job", name, "--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: ree job {name} ")
    shown = set(re.findall(r"^  (--[a-z-]+)", said, re.MULTILINE))
    caution = {"--allow-short-windows", "--prices"}
    subject = {"--artifact", "--inputs", "--model"}
    own = {
        "post": {"--terms"} | caution | subject, "accept": {"--dry-run"} | caution | subject,
        "commit": subject, "reveal": subject, "challenge": {"--provider"} | caution | subject,
        "respond": {"--provider", "--watch"} | caution | subject, "claim": set(), "status": set(),
    }  # fmt: skip
    assert shown == own[name] | {"--json", "--rpc", "--court", "--key", "--since"}
    assert ("JOB" in said) == (name != "post")


def parsed(line):
    args = vars(make_parser(COMMANDS).parse_args(["job", *shlex.split(line)]))
    return {k: v for k, v in args.items() if k != "grammar"}


@pytest.mark.parametrize(
    "line",
    [
        "--rpc u --court c --key k --json accept J --artifact a --dry-run",
        "--rpc=u --cou c --dry-run --json accept J --key k --artifact a",
        "accept --rpc u --court c --json --key k --dry-run --artifact a J",
        "--json --artifact status --rpc u accept J --artifact a --dry-run --court c --key k",
    ],
)
def test_options_of_an_action_may_stand_anywhere(line):
    usual = parsed("accept J --rpc u --court c --key k --artifact a --dry-run --json")
    assert parsed(line) == usual
    assert (usual["action"], usual["job"], usual["dry_run"], usual["rpc"]) == (
        "accept",
        "J",
        True,
        "u",
    )


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("", "required: action"), ("--rpc u", "required: action"), ("frob", "invalid choice: 'frob'"),
        ("--rpc u frob", "invalid choice: 'frob'"), ("status", "required: JOB, --rpc, --court"),
        ("status J --rpc u --court c --frob", "unrecognized arguments: --frob"),
        ("accept J --rpc u --court c --watch", "--watch is for job respond"),
        ("--watch accept J --rpc u --court c", "--watch is for job respond"),
        ("commit J --rpc u --court c --prices 1:1", "--prices is for what puts money on terms"),
        ("post J --rpc u --court c", "job post names the job itself"),
    ],
)  # fmt: skip
def test_what_an_action_does_not_take_is_said(line, text, capsys):
    assert main(["job", *shlex.split(line)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert text in err.splitlines()[0]


def test_the_table_is_what_ree_lists(capsys):
    assert main(["--help"]) == 0
    listed = re.findall(r"^    (\w+)", capsys.readouterr().out, re.MULTILINE)
    assert listed == list(COMMANDS)


def test_arguments_are_added_when_they_are_needed(capsys):
    asked = []
    parser = make_parser({"x": SimpleNamespace(HELP="do nothing", add_arguments=asked.append)})
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    assert asked == []
    parser.parse_args(["x"])
    parser.commands["x"].format_help()
    assert asked == [parser.commands["x"]]


def called(text):
    """Names where a command stands in the calls of a module of tests: main(["run", ...]) or by a helper."""
    if "ree.cli" not in text:
        return set()
    return set(re.findall(r'(?:\[|capsys, |command\((?:\w+, )?|"ree\.cli", )\s*"(\w+)"', text))


def test_every_command_is_tested_and_one_that_is_not_is_seen():
    assert called('from ree.cli import main\nmain(["run", x]), {"audit"}') == {"run"}
    sources = [p.read_text() for p in TESTS.rglob("*.py")]
    assert set(COMMANDS) - set().union(*map(called, sources)) == set()


def test_conformance_says_what_differs(tmp_path, monkeypatch, capsys):
    """On one operator, and a small program in the place of the model's: another root, until it is expected."""
    from ree import Program, conformance
    from ree.kernels import opdef

    case = next(conformance.cases("add"))
    examples = dict(zip(case.program.names.inputs, case.sample.inputs, strict=True))
    small = Program(case.program.graph, case.program.names, (), examples)
    monkeypatch.setattr(opdef, "names", lambda: ("add",))
    monkeypatch.setattr(conformance, "model_program", lambda: small)
    assert main(["conformance", "-o", str(tmp_path / "report.json")]) == 1
    assert "DIFFERS minilm\n1 of 2 conform to repops/0\n" in capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text())
    golden = json.loads(conformance.GOLDEN.read_text())
    golden["models"]["minilm"] = report["models"]["minilm"]["root"]
    (tmp_path / "golden.json").write_text(json.dumps(golden))
    monkeypatch.setattr(conformance, "GOLDEN", tmp_path / "golden.json")
    assert main(["conformance", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["same"] is True


def test_a_parser_takes_no_empty_argument():
    parser = Parser(prog="x")
    parser.add_argument("--a")
    with pytest.raises(Exception, match="expected a value, got an empty one"):
        parser.parse_args(["--a", ""])
