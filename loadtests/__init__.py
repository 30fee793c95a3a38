"""Load on a whole cluster, with Locust, and a proof that nothing of it was lost or doubled: `make load`.

locustfile   the callers; the only file that knows Locust, and that runs in Locust's own environment
handlers     what they ask for                     journal    every request and what was answered, one line each
scenarios    what is played, for how long           cluster    nodes on a PostgreSQL (and a RabbitMQ) of their own
driver       plays one scenario                     record     what the record says when all is over
audit        what must be true of both              report     figures, report.md, report.json
plot         pictures (matplotlib)                  run        all of it, in order
"""
