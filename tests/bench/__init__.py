"""What the speed of Pellucid is against others, or a bare loop."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded, as the server does
