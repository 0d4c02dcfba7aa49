"""The indexes of tar archives and LMDB environments: what lies at which bytes or under which key."""
