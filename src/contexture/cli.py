"""The command line: one parser for `contexture compare`, `list`, `papers`, `claim`, `serve` and the other commands.

Only the parser lives here, so that `--help` and completion answer without importing torch; each command's work is in a
module of `contexture.commands`, imported when the command runs. Data go to standard output, everything else to
standard error. Exit status: 0 done; 1 a check's result is not the expected one; 2 bad input; 3 no usable checkpoint;
130 interrupted. The environment variable CONTEXTURE_PATHS sets the paths that ops take: "path", or "op=path,op=path".
"""

import argparse
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from contexture import __version__
from contexture.errors import ContextureError, InputError

INTERRUPTED = 130

EXAMPLES = """\
examples:
  contexture compare diabetes                                 a bundled table, every learner that fits it
  contexture compare houses.csv --target price                your own table (CSV or Parquet)
  contexture compare linear-regression --learners ols,ridge,knn,transformer
  contexture predict train.csv new.csv --target price -o predictions.csv
  contexture compare bandit                                   agents that choose what they see next
  contexture list learners                                    what there is; also tasks, agents, mixers, papers
  contexture train linear-regression --run-dir runs/linear    train a small in-context learner again
  contexture claim icl-by-gd                                  what a paper claims, measured here, with controls
  contexture papers search "linear attention recall"          papers, and what was measured of them
  contexture site build public/                               the catalogue as pages for any host
  contexture bench mixers --length 512,2048                   how fast mixers are on this machine
  contexture serve                                            every paper, searchable, with what was measured
  contexture doctor                                           what to paste into a bug report
"""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Examples first: argparse prints the description before the options, and ours holds the examples."""


class _Parser(argparse.ArgumentParser):
    """Bad arguments are bad input: one sentence and exit status 2."""

    def error(self, message: str) -> "None":  # type: ignore[override]
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _comma_list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _sizes(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in _comma_list(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers such as 20,50,100") from None
    if not sizes or min(sizes) < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of context sizes such as 20,50,100")
    return tuple(sorted(set(sizes)))


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return value


def _level(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1") from None
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _add_reading(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("reading the table")
    group.add_argument("--target", metavar="NAME|INDEX", help="the column to predict; -1 is the last")
    group.add_argument(
        "--type",
        choices=("regression", "classification"),
        help="what the target is (default: inferred and printed)",
    )
    group.add_argument(
        "--categorical", type=_comma_list, default=(), metavar="A,B", help="columns to read as categories"
    )
    group.add_argument("--numeric", type=_comma_list, default=(), metavar="A,B", help="columns to read as numbers")
    group.add_argument("--delimiter", metavar="CHAR", help="what separates fields (default: found out and printed)")
    group.add_argument("--encoding", help="the file's encoding (default: found out and printed)")
    group.add_argument(
        "--header", action=argparse.BooleanOptionalAction, help="the first row holds names (default: inferred)"
    )
    group.add_argument("--drop-missing-target", action="store_true", help="drop and count rows without a target")


def _add_compare(commands: "argparse._SubParsersAction[_Parser]") -> None:
    parser = commands.add_parser(
        "compare",
        help="how every learner does as examples arrive",
        formatter_class=_Formatter,
        description="examples:\n"
        "  contexture compare diabetes\n"
        "  contexture compare houses.csv --target price --context 20,50,100\n"
        "  contexture compare linear-regression --learners ols,ridge,gd,newton,knn,transformer\n"
        "  contexture compare wine --json > wine.json\n"
        "  contexture compare linear-regression --mixers softmax,delta-rule\n"
        "  contexture compare elec.csv --stream --target class\n"
        "  contexture compare permuted-digits --stream\n"
        "  contexture compare recall --mixers softmax,delta-rule,mine.py:MyMixer --budget small\n"
        "  contexture compare bandit --agents thompson,ucb,transformer,mine.py:MyAgent\n"
        "  contexture compare darkroom --set size=5 --steps 400\n\n"
        "Shows learners the same examples and prints each one's error at several context sizes.",
    )
    parser.add_argument(
        "task", metavar="TASK", help="a task or environment from `contexture list`, or a CSV or Parquet file"
    )
    parser.add_argument(
        "--learners", type=_comma_list, metavar="A,B", help="names, files (mine.py:MyLearner), run folders"
    )
    parser.add_argument("--context", type=_sizes, metavar="N,N", help="context sizes to score at")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the task (repeat for more)"
    )
    parser.add_argument("--metric", metavar="NAME", help="the loss to score by (default: the task's own)")
    parser.add_argument("--episodes", type=_positive, metavar="N", help="prompts for each seed, or splits of a table")
    parser.add_argument("--seeds", type=_positive, default=None, metavar="N", help="independent seeds (default 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON document on standard output")
    parser.add_argument("--report", metavar="FILE", help="where the HTML report goes (default: contexture-reports/)")
    parser.add_argument("--figure", metavar="FILE.svg", help="write the learning curves as a picture of their own")
    parser.add_argument("--no-report", action="store_true", help="write no report")
    parser.add_argument(
        "--stream",
        action="store_true",
        help="take the rows of a table, or a stream that has a name (permuted-digits, river's phishing, ...), in their "
        "order, each asked before it is told",
    )
    mixers = parser.add_argument_group("mixers, trained for the comparison (TASK: recall, or a synthetic family)")
    mixers.add_argument("--mixers", type=_comma_list, metavar="A,B|all", help="names and files (mine.py:MyMixer)")
    mixers.add_argument(
        "--budget", choices=("tiny", "small", "standard", "full"), default="small", help="how much is trained"
    )
    mixers.add_argument("--markdown", metavar="FILE.md", help="write the ladder's tables for a page")
    mixers.add_argument("--tasks", type=_comma_list, metavar="A,B", help="rungs of the recall ladder, or their tasks")
    mixers.add_argument(
        "--match",
        type=_comma_list,
        metavar="A,B",
        help="what is made equal: parameters, state, seconds (default: parameters)",
    )
    mixers.add_argument("--run-dir", metavar="FOLDER", help="where trained parts are kept; the same command goes on")
    mixers.add_argument("--workers", type=_positive, metavar="N", help="processes of one thread (default: all cores)")
    agents = parser.add_argument_group("agents that act (TASK: an environment, `contexture list environments`)")
    agents.add_argument("--agents", type=_comma_list, metavar="A,B", help="names, files (mine.py:MyAgent), run folders")
    agents.add_argument(
        "--steps", type=_positive, metavar="N", help="steps in each world (default 200, or 20 episodes)"
    )
    agents.add_argument("--worlds", type=_positive, metavar="N", help="worlds for each seed (default 200)")
    _add_reading(parser)


def _add_predict(commands: "argparse._SubParsersAction[_Parser]") -> None:
    parser = commands.add_parser(
        "predict",
        help="predictions for new rows of a table",
        formatter_class=_Formatter,
        description="examples:\n"
        "  contexture predict train.csv new.csv --target price -o predictions.csv\n"
        "  contexture predict train.csv new.csv --target -1 --learner random-forest\n\n"
        "Learns from TRAIN and writes a row of predictions for each row of NEW: the point prediction and an interval\n"
        "for a number, the class and its probabilities for a class. Columns are matched by name.",
    )
    parser.add_argument("train", metavar="TRAIN", help="a CSV or Parquet file with the target")
    parser.add_argument("new", metavar="NEW", help="a file with the same columns; the target may be absent")
    parser.add_argument("-o", "--output", metavar="FILE", help="where predictions go (default: standard output)")
    parser.add_argument("--learner", default="transformer", metavar="NAME", help="the learner (default: transformer)")
    parser.add_argument("--level", type=_level, default=0.8, metavar="SHARE", help="the interval's level (default 0.8)")
    _add_reading(parser)


def _add_list(commands: "argparse._SubParsersAction[_Parser]") -> None:
    parser = commands.add_parser("list", help="the tasks, learners, environments, agents, mixers or papers there are")
    parser.add_argument("what", choices=("tasks", "learners", "environments", "agents", "mixers", "metrics", "papers"))
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def _add_train(commands: "argparse._SubParsersAction[_Parser]") -> None:
    parser = commands.add_parser("train", help="train an in-context learner", formatter_class=_Formatter)
    parser.add_argument("recipe", metavar="RECIPE")
    parser.add_argument("--run-dir", metavar="FOLDER")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--inexact", action="store_true")
    parser.add_argument("--mixers", metavar="A,B")
    parser.add_argument("--set", action="append", metavar="NAME=VALUE")


def _add_claim(commands: "argparse._SubParsersAction[_Parser]") -> None:
    parser = commands.add_parser(
        "claim",
        help="measure what papers claim, each with a control that must fail",
        formatter_class=_Formatter,
        description="examples:\n"
        "  contexture claim icl-by-gd                     every claim of the paper at smoke scale\n"
        "  contexture claim icl-by-gd --scale cpu         at the published scale, minutes\n"
        "  contexture claim --all --scale smoke           every paper\n"
        "  contexture claim mine.py                       a paper of your own\n\n"
        "Measures each claim, the reference it is held against and the control that must fail, on the same seeds.\n"
        "Exit status 1 if an exact claim does not come out as expected. What was measured before by the same program\n"
        "is shown again; an interrupted run goes on where it stopped.",
    )
    parser.add_argument("paper", nargs="?", metavar="KEY", help="a paper from `contexture list papers`, or a file.py")
    parser.add_argument("--all", action="store_true", help="every paper")
    parser.add_argument("--only", metavar="NAME", help="one claim of the paper")
    parser.add_argument("--scale", choices=("smoke", "cpu", "long", "gpu"), default="smoke", help="(default: smoke)")
    parser.add_argument("--seeds", type=_positive, default=3, metavar="N", help="independent seeds, at least 3")
    parser.add_argument("--json", action="store_true", help="print one JSON document on standard output")
    parser.add_argument(
        "--events", action="store_true", help="for programs: a JSON object a line as it goes; ends with standard input"
    )
    parser.add_argument("--report", metavar="FILE", help="write an HTML report with every figure")
    parser.add_argument("--run-dir", metavar="FOLDER", help="where models, results, figures go (default: user cache)")
    parser.add_argument("--again", action="store_true", help="measure anew what stands already")
    parser.add_argument("--publish", metavar="FOLDER", help="write FOLDER/KEY.json with machine, versions and command")
    parser.add_argument("--page", metavar="FILE.md", help="renew the table of published results (--publish) on a page")


def _add_check(commands: "argparse._SubParsersAction[_Parser]") -> None:
    parser = commands.add_parser(
        "check",
        help="hold your own mixer, learner, task, environment or agent to the laws",
        formatter_class=_Formatter,
        description="examples:\n  contexture check mixers mine.py:MyMixer\n  contexture check learners ridge\n"
        "  contexture check environments mine.py:MyBandit\n  contexture check papers mine.py\n",
    )
    parser.add_argument("room", choices=("mixers", "learners", "tasks", "environments", "agents", "papers"))
    parser.add_argument("name", help="a registered name, or file.py:ClassName (papers: file.py)")


def _add_bench(commands: "argparse._SubParsersAction[_Parser]") -> None:
    parser = commands.add_parser(
        "bench",
        help="how fast mixers are on this machine, and what they hold",
        formatter_class=_Formatter,
        description="examples:\n"
        "  contexture bench mixers --length 512,2048,8192\n"
        "  contexture bench mixers --mixers softmax,delta-rule,mine.py:MyMixer --dtype fp32,bf16\n\n"
        "Times forward, forward with backward and one decoded token of a layer of 4 heads of 64, batch 2;\n"
        "measures its state and its peak memory.",
    )
    parser.add_argument("what", choices=("mixers",))
    parser.add_argument("--mixers", type=_comma_list, default=("all",), metavar="A,B", help="names, mine.py:MyMixer")
    parser.add_argument("--length", type=_sizes, default=(512, 2048), metavar="N,N", help="lengths (default 512,2048)")
    parser.add_argument("--dtype", type=_comma_list, default=("fp32",), metavar="A,B", help="fp32, bf16 (default fp32)")
    parser.add_argument("--threads", type=_positive, default=1, metavar="N", help="threads of one op (default 1)")
    parser.add_argument(
        "--longest-call",
        type=float,
        default=20.0,
        metavar="S",
        help="leave out what takes more seconds a call (default 20)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document on standard output")
    parser.add_argument("-o", "--output", metavar="FILE.json", help="write the measurement to a file")
    parser.add_argument("--keep", action="store_true", help="keep the rows of that file for mixers not measured now")
    parser.add_argument("--markdown", metavar="FILE.md", help="write the tables for a page")
    parser.add_argument("--figure", metavar="FILE.svg", help="write a picture of the times")


def _add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results", metavar="FOLDER", help="published results (default: ./results, or those of the checkout)"
    )


def _add_papers(commands: "argparse._SubParsersAction[_Parser]") -> None:
    parser = commands.add_parser(
        "papers",
        help="search, show and export the catalogue of papers",
        formatter_class=_Formatter,
        description="examples:\n"
        '  contexture papers search "linear attention recall"\n'
        "  contexture papers search --status measured --verdict undecided\n"
        "  contexture papers show icl-by-gd\n"
        "  contexture papers export --format csv > papers.csv\n",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=_Parser)
    search = actions.add_parser("search", help="papers that have every word; all of them without words")
    search.add_argument("words", nargs="*", metavar="WORDS", help="beginnings of words, in any order")
    for facet in ("family", "status", "verdict", "mechanism", "task", "year"):
        search.add_argument(f"--{facet}", type=_comma_list, default=(), metavar="A,B", help=f"only this {facet}")
    search.add_argument("--sort", metavar="ORDER", default="", help="newest, title, status or family")
    search.add_argument("--json", action="store_true", help="print one JSON document")
    show = actions.add_parser("show", help="one paper: what it says, and what was measured of it")
    show.add_argument("key", metavar="KEY", help="the paper's key, as `contexture papers search` prints it")
    show.add_argument("--json", action="store_true", help="print one JSON document")
    export = actions.add_parser("export", help="every paper for another program")
    export.add_argument("--format", choices=("json", "csv", "bibtex"), default="json", help="(default: json)")
    for action in (search, show, export):
        _add_results(action)


def _add_site(commands: "argparse._SubParsersAction[_Parser]") -> None:
    parser = commands.add_parser(
        "site",
        help="write the catalogue as pages for any host",
        formatter_class=_Formatter,
        description="examples:\n  contexture site build public/\n",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=_Parser)
    build = actions.add_parser("build", help="write every page into a folder")
    build.add_argument("folder", metavar="FOLDER", help="a new or empty folder, or one that was built before")
    build.add_argument(
        "--url", default="", metavar="URL", help="where it will stand, for feeds (default: relative names)"
    )
    _add_results(build)


def _port(text: str) -> int:
    value = _positive(text)
    if value > 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port: there are 1 to 65535")
    return value


def _add_serve(commands: "argparse._SubParsersAction[_Parser]") -> None:
    parser = commands.add_parser(
        "serve",
        help="the catalogue of papers as pages of this machine, with claims that run at the press of a button",
        formatter_class=_Formatter,
        description="examples:\n"
        "  contexture serve\n"
        "  contexture serve --port 8000 --no-browser --results results\n\n"
        "Serves this machine alone, until Ctrl-C.",
    )
    parser.add_argument("--port", type=_port, metavar="N", help="where (default: 8765, or any if that is taken)")
    _add_results(parser)
    parser.add_argument("--run-dir", metavar="FOLDER", help="where runs are recorded (default: user cache)")
    parser.add_argument("--no-browser", dest="browser", action="store_false", help="open no browser")


def _add_digest(commands: "argparse._SubParsersAction[_Parser]") -> None:
    parser = commands.add_parser(
        "digest",
        help="what changed among published results since the last letter, by e-mail",
        formatter_class=_Formatter,
        description="examples:\n"
        "  contexture digest --to you@example.org --dry-run\n"
        "  contexture digest --to you@example.org --smtp mail.example.org:587 --user you\n\n"
        "Sends plain text and HTML; nothing where nothing changed. The password of --user is read from the\n"
        "environment variable CONTEXTURE_SMTP_PASSWORD, and goes to another machine over TLS alone.",
    )
    parser.add_argument("--to", required=True, metavar="A@B", help="addresses, separated by commas")
    parser.add_argument("--from", dest="sender", metavar="A@B", help="the sender (default: the first of --to)")
    parser.add_argument(
        "--smtp", default="localhost:25", metavar="HOST:PORT", help="mail server (default localhost:25)"
    )
    parser.add_argument("--user", default="", metavar="NAME", help="a name to log in with")
    _add_results(parser)
    parser.add_argument("--site", default="", metavar="URL", help="a built site that results link to")
    parser.add_argument("--state", metavar="FILE", help="what the last letter knew (default: one for each --to)")
    parser.add_argument("--dry-run", action="store_true", help="print the letter and send nothing")


def parser() -> argparse.ArgumentParser:
    """The whole parser, also for shell completion."""
    top = _Parser(
        prog="contexture",
        formatter_class=_Formatter,
        description=f"{EXAMPLES}\nA workbench for models that learn from their context.",
    )
    top.add_argument("--version", action="version", version=f"contexture {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    for add in (
        _add_compare,
        _add_predict,
        _add_list,
        _add_papers,
        _add_site,
        _add_train,
        _add_claim,
        _add_check,
        _add_bench,
        _add_serve,
        _add_digest,
    ):
        add(commands)
    doctor = commands.add_parser("doctor", help="the environment, for a bug report")
    doctor.add_argument("--json", action="store_true", help="print one JSON document")
    completion = commands.add_parser("completion", help="print a completion script for your shell")
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    return top


def _print_completion(shell: str) -> int:
    import shtab

    print(shtab.complete(parser(), shell))
    return 0


@contextmanager
def _chosen_paths() -> Iterator[None]:
    """The paths of ops that the environment asks for; nowhere else is it read."""
    text = os.environ.get("CONTEXTURE_PATHS", "")
    if not text:
        yield
        return
    from contexture.discovery import ops
    from contexture.ops.dispatch import EVERY, parse, use_all

    paths = parse(text)
    unknown = [name for name in paths if name not in (EVERY, *ops())]
    if unknown:
        raise InputError(f"CONTEXTURE_PATHS names no op {unknown[0]!r}: there are {', '.join(ops())}")
    with use_all(paths):
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["train"]:
        # The settings of a recipe are tyro's to parse; argparse knows `train` for help and completion alone.
        options = argparse.Namespace(command="train", recipe=given[1] if len(given) > 1 else None, rest=given[2:])
    else:
        options = parser().parse_args(given)
    if options.command == "completion":
        return _print_completion(options.shell)
    try:
        with _chosen_paths():
            command = importlib.import_module(f"contexture.commands.{options.command}_command")
            status: int = command.run(options)
    except ContextureError as error:
        print(f"contexture: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt as interruption:
        said = str(interruption)
        print(f"contexture: interrupted{'; ' + said if said else ''}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    return status


if __name__ == "__main__":
    sys.exit(main())
