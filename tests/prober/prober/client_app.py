"""Would run at a party if nodes ran what they are sent."""

import os
from pathlib import Path

from flwr.clientapp import ClientApp

Path(os.environ["FLWR_HOME"], "shipped-code-ran").touch()

app = ClientApp()
