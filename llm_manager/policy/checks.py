"""Settings of policies are looked at when a policy is made, not when it is needed."""

from ..checks import YEAR_S as YEAR_S
from ..checks import check_number as check_number
from ..checks import check_type as check_type
