"""A store that is an SQL database: PostgreSQL 11 and later.

| module | what it knows |
| --- | --- |
| `url` | what a Secret's URL may say, and what is refused |
| `sessions` | connections and transactions, of which every wait ends |
| `postgres` | the driver: COPY, composing statements |
| `errors` | the driver's errors, reduced to what holds nothing personal |
| `catalog` | what the live schema says about a mapping's tables |
| `values` | keys, e-mail candidates and the values that an erasure writes |
| `proving` | whether a mapping fits the live schema |
| `journal`, `positions` | head and entries; how far keys and sequences have been given out |
| `finding`, `contacting`, `staging`, `erasing`, `checking` | one use of the store each |
| `schemas` | a whole live schema, for a mapping to be proposed |
| `store` | `SqlStore`, which puts them together |

Another dialect comes as a second set of `url`, `sessions`, `postgres`, `catalog` and the statements, picked
in `store`.
"""
