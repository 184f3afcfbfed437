from contexture.estimators.in_context import ContextClassifier as ContextClassifier
from contexture.estimators.in_context import ContextRegressor as ContextRegressor
from contexture.estimators.saving import load as load
from contexture.estimators.saving import save as save
