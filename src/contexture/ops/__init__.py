from contexture.ops.dispatch import counts as counts
from contexture.ops.dispatch import use as use
