"""SecretFlow's `spu`: one party of its PSI over its own link on loopback, CSV in, CSV out.

Option: ecdh (Curve25519) or rr22 (fast mode).
"""

import re
from pathlib import Path

from party import Party
from spu.libspu import link
from spu.psi import (
    EcdhParams,
    EllipticCurveType,
    InputParams,
    OutputParams,
    PsiExecuteConfig,
    PsiProtocol,
    PsiProtocolConfig,
    Rr22Rarams,
    psi_execute,
)

PROTOCOLS = {
    "ecdh": PsiProtocolConfig(
        PsiProtocol.PROTOCOL_ECDH, ecdh_params=EcdhParams(EllipticCurveType.CURVE_25519)
    ),
    "rr22": PsiProtocolConfig(
        PsiProtocol.PROTOCOL_RR22,
        rr22_params=Rr22Rarams(low_comm_mode=False),  # the other mode loses matches silently
    ),
}

party = Party()
description = link.Desc()
description.connect_retry_times, description.connect_retry_interval_ms = 600, 100
for role, port in zip(("receiver", "sender"), party.ports, strict=True):
    description.add_party(role, f"127.0.0.1:{port}")
config = PsiExecuteConfig(
    PROTOCOLS[party.options[0]],
    InputParams(
        path=str(party.folder / f"{party.role}.csv"), selected_keys=["id"], keys_unique=True
    ),
    OutputParams(path=str(party.folder / f"{party.role}-found.csv"), disable_alignment=True),
)
party.ready()
context = link.create_brpc(description, 0 if party.receives else 1)
psi_execute(config, context)
party.report()
context.stop_link()
for trace in re.findall(r"written to (\S+\.trace)", party.log.read_text(errors="replace")):
    Path(trace).unlink(missing_ok=True)  # it lies outside TMPDIR and would stay
