"""What flows must come to: the same flow with the same arguments in the engine alone, by selinon-cli execute.

Two runs of a flow have different ids; what is compared is the `digest` of each run, which fault_flows.c makes
of all that the run has seen, and puts into the file SEL_FAULT_FLOW_LOG.
"""
import collections
import json
import os
import subprocess

from cluster import DEFINITIONS, NODES, Failure

FLOWS = ("chain", "diamond", "choice", "rescue", "rescue_both", "hopeless", "again", "fan", "square_join", "ring", "retries",
         "patient", "aside", "eager", "given", "fruit", "tree", "branches", "deep", "sick", "sick_deep", "choosy", "slow", "sampled")
RETRIED = ("Stumbles", "Falls")  # tasks of which a run has several tries


def read_log(path):
    """({n: {id: (flow, task, digest)}}, {(id, task, try): how often it was begun}): of all that ran; one run always
    sees the same."""
    runs, begun = collections.defaultdict(dict), collections.Counter()
    try:
        with open(path, encoding="ascii") as stream:
            for line in stream:
                n, id_, flow, task, digest, number, _ = line.split()
                seen = runs[int(n)].setdefault(id_, (flow, task, digest))
                if seen != (flow, task, digest):
                    raise Failure(f"run {id_} of number {n} was {seen} and then {(flow, task, digest)}")
                begun[id_, task, int(number)] += 1
    except FileNotFoundError:
        pass
    return runs, begun


def outcome_of(outcome, state, runs):
    """All that an end of a flow says, with digests in place of ids. `state`: the payload of its RESULT, or what
    execute says; `runs`: of its number, see read_log."""
    def nodes(by_name):
        return {name: sorted(runs[i][2] if i in runs else "flow" for i in ids) for name, ids in by_name.items()}

    for by_name in (state["finished_nodes"], state["failed_nodes"]):
        for ids in by_name.values():
            if len(set(ids)) != len(ids):
                raise Failure(f"a node is told twice: {by_name}")
    return {"outcome": outcome, "active": sorted(node["name"] for node in state["active_nodes"]),
            "finished": nodes(state["finished_nodes"]), "failed": nodes(state["failed_nodes"]),
            "runs": sorted(runs.values())}


class Oracle:
    """`folder`: for its results and logs."""

    def __init__(self, programs, modules, folder):
        self.programs, self.modules, self.folder = programs, modules, folder
        self.known = {}

    def outcome(self, flow, v):
        """Of the flow with variant v, as outcome_of."""
        if (flow, v) not in self.known:
            self.known[flow, v] = self._execute(flow, v)
        return self.known[flow, v]

    def _execute(self, flow, v):
        log = os.path.join(self.folder, f"oracle.{flow}.{v}.runs")
        done = subprocess.run(
            [os.path.join(self.programs, "selinon-cli"), "execute", "-n", NODES, "-f", DEFINITIONS, "--module-path", self.modules,
             "--flow-name", flow, "-j", "--node-args", json.dumps({"n": 0, "v": v}), "--json", "--virtual-time", "--hide-progressbar"],
            env={**os.environ, "SEL_FAULT_FLOW_LOG": log, "SEL_FAULT_RESULTS": os.path.join(self.folder, "oracle.results")},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
        try:
            said = json.loads(done.stdout)
        except ValueError:
            raise Failure(f"execute of {flow} ({v}) ends with {done.returncode}: {done.stderr[-2000:]}") from None
        outcome = {"success": "finished", "failure": "failed"}.get(said["outcome"], said["outcome"])
        return outcome_of(outcome, said["state"], read_log(log)[0][0])


def differences(told, wanted):
    """Where an outcome is not what it should be, for people; "" if nowhere."""
    return "; ".join(f"{key}: {told[key]}, not {wanted[key]}" for key in wanted if told[key] != wanted[key])
