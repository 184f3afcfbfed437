"""`contexture predict TRAIN NEW`: predictions for new rows, written as CSV."""

import argparse
import sys

from contexture.commands.console import say
from contexture.commands.reading import reading


def run(options: argparse.Namespace) -> int:
    """Write the predictions to --output, or to standard output; everything else is said on standard error."""
    from contexture.tables.write import check_output, predictions_text, write_predictions

    inputs = (options.train, options.new)
    if options.output:
        check_output(options.output, inputs=inputs)
    chosen = reading(options)
    dataset = chosen.read(options.train)

    from contexture.api import predict

    predictions = predict(dataset, options.new, reading=chosen, learner=options.learner, level=options.level)
    say(*predictions.findings)
    if options.output:
        write_predictions(options.output, predictions.columns, inputs=inputs)
        rows = len(next(iter(predictions.columns.values())))
        say(f"{rows} predictions written to {options.output}")
    else:
        sys.stdout.write(predictions_text(predictions.columns))
    return 0
