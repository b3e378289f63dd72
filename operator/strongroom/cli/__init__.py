# SPDX-License-Identifier: Apache-2.0
"""The command line: `strongroom`, also installed as `kubectl strongroom`.

Rules: stdout is data, stderr is talk. Nothing is written before everything was checked and encrypted. A value is never
taken from an argument and never shown in a message. Imports are lazy: `--help` loads click and this package alone.

    main            entry: the verbs, loaded when used, and the edge where errors become lines and exit codes
    verbs/          one module per verb
    options         what several verbs take: the cluster, the inputs, the output format
    sources         -f FILE|-|DIR → text
    documents       text → documents → objects and back; untouched documents keep their bytes
    comments, yamltext, base64text   YAML round trips with comments, and quoting that YAML 1.1 readers understand
    secret, encryptedsecret   the two kinds: checked on the way in, built on the way out
    cluster, keysapi     the caller's kubeconfig, and the crypto API over it
    output          stdout, or files replaced atomically
    failure, hints, terminal, exits   what errors look like
"""
