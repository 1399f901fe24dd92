"""OpenMined's `openmined-psi`: client and server, raw data structure, intersection revealed."""

from array import array
from contextlib import closing

import private_set_intersection.python as psi
from party import Party

party = Party()
items = (party.folder / f"{party.role}.csv").read_text().split()[1:]
party.ready()
with closing(party.connect()) as link:
    if party.receives:
        client = psi.client.CreateWithNewKey(reveal_intersection=True)
        link.send(client.CreateRequest(items).SerializeToString())
        setup, response = psi.ServerSetup(), psi.Response()
        setup.ParseFromString(bytes(link.receive()))
        response.ParseFromString(bytes(link.receive()))
        party.report(array("q", client.GetIntersection(setup, response)).tobytes())
    else:
        server = psi.server.CreateWithNewKey(reveal_intersection=True)
        setup = server.CreateSetupMessage(1e-9, len(items), items, psi.DataStructure.RAW)
        link.send(setup.SerializeToString())
        request = psi.Request()
        request.ParseFromString(bytes(link.receive()))
        link.send(server.ProcessRequest(request).SerializeToString())
        party.report()
