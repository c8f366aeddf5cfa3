"""What the processes of a job agree on: all compile the same program, or none goes on.

A step runs on several processes only if their exchanges come in the same order. So one decides, the
others get its decision (`decided`) through the store that JAX starts for a job (`job_store`), and
all compare what they would compile (`agree`).

May import `aot`, `profile`, `seams`, `errors` and `hlo_passes`.

Terms:
    job: the processes that run one program; alone where there is one.
    peer: another process of the job.
    member: a process with devices that the step runs on.
    decision: a program's passes, options and orders, as data.
"""
