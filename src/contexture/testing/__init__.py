from contexture.testing.errors import LawError as LawError
from contexture.testing.learners import check_learner as check_learner
from contexture.testing.mixers import check_mixer as check_mixer
from contexture.testing.ops import check_op as check_op
from contexture.testing.set_mixers import check_set_mixer as check_set_mixer
from contexture.testing.tasks import check_task as check_task
