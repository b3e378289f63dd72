# SPDX-License-Identifier: Apache-2.0
"""The main job from beginning to end on a real control plane, shown and checked step by step: `make demo`.

__main__      the order of the steps, the command line, the exit status
setup         starts what is needed; creates the key, the people and their permissions
mainjob       real secrets, encrypted, applied, compared, recorded, healed
refusals      what must not work, and what it says
stage         what the steps share: control plane, operator, people, originals
shell         a person at a shell: the commands shown are the commands run
originals     the plaintext Secrets, and how to look for what they hold
tokenprobe    tries to read key material out of the token
report        what is printed
writeexamples examples/encryptedsecret-*.yaml, made anew
"""
