"""Cluster files from a run file: the machines that it needs, then YAML, images and scripts.

    settings -> sizes.py    Need: a unit of work's share of a machine, and how many at most
                  |-> ec2.py, ray_yaml.py    Ray's autoscaler on AWS, and a list of own machines
                  |-> pods.py, kuberay.py, kubernetes.py    KubeRay, and what it needs around it
                  '-> slurm.py, images.py    a batch script, Dockerfiles

All of it is pure but for `commands.py`, which writes what `render.py` returns.
"""
