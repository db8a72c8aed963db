"""For Celery's own commands: ``celery -A farm.celery_app beat`` asks the fleet's workers for repair every few
seconds, and for collection every minute.

Reads the configuration when it is imported, as Celery's loader wants it. Workers also repair and collect by
themselves; one beat for a fleet only makes it sooner.
"""

from __future__ import annotations

import sys

from farm.config import load
from farm.errors import FarmError
from farm.tasks import make_app

try:
    app = make_app(load().broker_url)
except FarmError as error:  # Celery's command line knows nothing of farm's errors
    sys.exit(f"farm: {error.message}\n      {error.hint}")
