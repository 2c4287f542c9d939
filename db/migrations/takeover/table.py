"""The takeover itself: an older table becomes the wanted one, in place."""

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Final

from db.migrations.takeover import older as catalog
from db.migrations.takeover.columns import MARK, Columns, Wanted
from db.migrations.takeover.older import TABLE, Constraint, Older, Policy
from db.migrations.takeover.steps import Steps, attempt, run
from db.migrations.takeover.values import FUNCTIONS, quoted

log = logging.getLogger("db.migrations")

ALTER: Final = f"ALTER TABLE {TABLE}"
PRIMARY_KEY: Final = f"pk_{TABLE}"
TRIGGER: Final = f"{TABLE}_updated_at"

# Of several active sessions of a user the newest stays.
SUPERSEDED: Final = f"""
UPDATE {TABLE} SET status = 'invalidated', {MARK} = 'invalidated' WHERE id IN (
    SELECT id FROM (
        SELECT id, row_number() OVER (PARTITION BY user_id ORDER BY created_at DESC, id DESC) AS place
        FROM {TABLE} WHERE status = 'active'
    ) AS active WHERE place > 1
)
"""
# A payment completes one session: the newest. The others' references stay in the older column.
PAID_TWICE: Final = f"""
UPDATE {TABLE} SET payment_reference = NULL WHERE id IN (
    SELECT id FROM (
        SELECT id, row_number() OVER (PARTITION BY payment_reference ORDER BY completed_at DESC, id DESC) AS place
        FROM {TABLE} WHERE payment_reference IS NOT NULL
    ) AS paid WHERE place > 1
)
"""
UNPAID: Final = f"SELECT EXISTS (SELECT FROM {TABLE} WHERE status = 'completed' AND payment_reference IS NULL)"
NAMES: Final = f"""
SELECT attname FROM pg_attribute WHERE attrelid = {catalog.HERE} AND attnum > 0 AND NOT attisdropped
UNION SELECT indexrelid::regclass::name FROM pg_index WHERE indrelid = {catalog.HERE}
UNION SELECT conname FROM pg_constraint WHERE conrelid = {catalog.HERE}
UNION SELECT tgname FROM pg_trigger WHERE tgrelid = {catalog.HERE} AND NOT tgisinternal
"""


class Takeover:
    """An older table, and what it is to become."""

    def __init__(
        self, steps: Steps, older: Older, wanted: Mapping[str, Wanted], constraints: Mapping[str, str], indexes: str
    ) -> None:
        self.steps = steps
        self.connection = steps.connection
        self.older = older
        self.wanted = wanted
        self.constraints = constraints
        self.indexes = indexes
        self.index_names = re.findall(r"INDEX (\w+) ON", indexes)
        self.columns = Columns(self.connection, older, wanted)
        primary = [each for each in older.constraints if each.kind == "p" and each.definition == "PRIMARY KEY (id)"]
        self.keeps_primary_key = bool(primary) and "id" in self.columns.kept

    def execute(self) -> None:
        """Take the table over."""
        self._silence()
        self._free_constraints()
        self._free_indexes()
        self._free_columns()
        self._rename()
        withdrawn = self._withdraw_policies()
        self._fill()
        self._finish()
        self._translate_policies(withdrawn)

    # What would stand in the way of new rows, or of a change, makes room.

    def _silence(self) -> None:
        """Older triggers and policies know the older columns. Disabled triggers stay, for the way back."""
        for policy in self.older.policies:
            if not policy.columns.isdisjoint(self.columns.emptied()):
                self.steps.later(_create_policy(policy))
        enable = {"O": "ENABLE", "R": "ENABLE REPLICA", "A": "ENABLE ALWAYS"}
        for trigger in self.older.triggers:
            name = quoted(trigger.name)
            if trigger.enabled in enable:
                log.warning("The older trigger %s is disabled.", trigger.name)
                self.steps.do(f"{ALTER} DISABLE TRIGGER {name}", f"{ALTER} {enable[trigger.enabled]} TRIGGER {name}")
            if trigger.name == TRIGGER:
                aside = quoted(f"older_{trigger.name}")
                self.steps.do(
                    f"ALTER TRIGGER {name} ON {TABLE} RENAME TO {aside}",
                    f"ALTER TRIGGER {aside} ON {TABLE} RENAME TO {name}",
                )
        if self.older.forced:
            self.steps.do(f"{ALTER} NO FORCE ROW LEVEL SECURITY", f"{ALTER} FORCE ROW LEVEL SECURITY")

    def _free_constraints(self) -> None:
        for key in self.older.incoming:
            if not self.keeps_primary_key:
                log.warning("The foreign key %s of %s is dropped: the ids' type changes.", key.name, key.table)
                self._drop_constraint(key)
            elif key.blocks_deletes:
                log.warning("The foreign key %s of %s will forbid to delete old sessions.", key.name, key.table)
        fed_back = self.columns.fed_back()
        for constraint in self.older.constraints:
            if constraint.kind == "p" and self.keeps_primary_key:
                if constraint.name != PRIMARY_KEY:
                    names = quoted(constraint.name), PRIMARY_KEY
                    self.steps.do(*(f"{ALTER} RENAME CONSTRAINT {a} TO {b}" for a, b in (names, names[::-1])))
            elif self._hinders(constraint):
                self._drop_constraint(constraint)
            elif constraint.kind == "f" and not constraint.columns.isdisjoint(fed_back):
                self._put_back_later(constraint)

    def _hinders(self, constraint: Constraint) -> bool:
        """Whether new rows, or the deletion of old ones, may fail on it."""
        if constraint.kind == "f":
            return constraint.self_referring or not constraint.columns.isdisjoint(self.columns.kept)
        return not (constraint.referenced and self.keeps_primary_key)

    def _drop_constraint(self, constraint: Constraint) -> None:
        self._put_back_later(constraint)
        self.steps.do(f"ALTER TABLE {constraint.table} DROP CONSTRAINT {quoted(constraint.name)}")

    def _put_back_later(self, constraint: Constraint) -> None:
        alter, name = f"ALTER TABLE {constraint.table}", quoted(constraint.name)
        add = f"{alter} ADD CONSTRAINT {name} {constraint.definition}"
        if constraint.kind not in "cf":
            self.steps.later(add, f"The constraint {name} cannot be put back")
        elif constraint.definition.endswith(("NOT VALID", "NOT ENFORCED")):
            self.steps.later(add)
        else:
            self.steps.later(f"{alter} VALIDATE CONSTRAINT {name}", f"The constraint {name} binds new rows only")
            self.steps.later(f"{add} NOT VALID")

    def _free_indexes(self) -> None:
        """Of the older indexes those stay that bind nothing and cover none of the columns that are known here."""
        ours = {column.name for column in self.older.columns.values() if self.columns.is_source(column)}
        for index in self.older.indexes:
            if index.referenced and self.keeps_primary_key:
                continue
            if index.unique or not index.columns.isdisjoint(ours) or index.name in self.index_names:
                otherwise = f"The index {index.name} cannot be put back" if index.unique else None
                self.steps.do(f"DROP INDEX {quoted(index.name)}", index.definition, otherwise)

    def _free_columns(self) -> None:
        for column in self.older.columns.values():
            alter = f"{ALTER} ALTER COLUMN {quoted(column.name)}"
            if column.default is not None and self.columns.is_source(column) and not column.computed:
                self.steps.do(f"{alter} DROP DEFAULT", f"{alter} SET DEFAULT {column.default}")
            if self.columns.loosened(column):
                self.steps.do(
                    f"{alter} DROP NOT NULL",
                    f"{alter} SET NOT NULL",
                    f"The column {column.name} may be null from now on",
                )

    def _rename(self) -> None:
        for name, now in sorted(self.columns.names.items(), key=lambda pair: pair[0] in self.columns.kept):
            if name != now:
                there, back = (quoted(name), quoted(now)), (quoted(now), quoted(name))
                self.steps.do(*(f"{ALTER} RENAME COLUMN {a} TO {b}" for a, b in (there, back)))

    # Policies that read an older column which new rows leave empty read the new one instead.

    def _withdraw_policies(self) -> list[Policy]:
        """Drop them, and say what they read under the names of now."""
        aside = {self.columns.names[name] for name in self.columns.emptied()}
        withdrawn = [each for each in catalog.policies(self.connection) if not each.columns.isdisjoint(aside)]
        for policy in withdrawn:
            self.steps.do(f"DROP POLICY {quoted(policy.name)} ON {TABLE}")
        return withdrawn

    def _translate_policies(self, policies: Iterable[Policy]) -> None:
        """One that cannot be translated stays dropped until the way back: whom it let in is kept out."""
        aside = [(self.columns.names[source.column.name], target, source) for target, source, _ in self.columns.aside()]
        for policy in policies:
            read = {name: (target, source) for name, target, source in aside if name in policy.columns}
            words = {name: self.columns.values.given_back(target, source) for name, (target, source) in read.items()}
            plain = all(name.startswith("older_") and "pg_temp" not in words[name] for name in words)
            create = _create_policy(policy, words)
            error = attempt(self.connection, create) if plain else "it reads columns in a way of their own"
            if error is None:
                self.steps.later(f"DROP POLICY {quoted(policy.name)} ON {TABLE}")
            else:
                log.warning("The policy %s is dropped, for it cannot be translated: %s.", policy.name, error)

    # The rows.

    def _fill(self) -> None:
        columns = {name: wanted for name, wanted in self.wanted.items() if name not in self.columns.kept.values()}
        added = [f"ADD COLUMN {name} {wanted.type}" for name, wanted in columns.items()]
        dropped = [f"DROP COLUMN {name}" for name in [*columns, MARK]]
        self.steps.do(f"{ALTER} {', '.join([*added, f'ADD COLUMN {MARK} text'])}", f"{ALTER} {', '.join(dropped)}")
        if not self.keeps_primary_key:
            if "id" in self.columns.kept and not self.older.columns["id"].not_null:
                self.steps.later(f"{ALTER} ALTER COLUMN id DROP NOT NULL")
            self.steps.later(f"{ALTER} DROP CONSTRAINT {PRIMARY_KEY}")
        fed_back = self.columns.fed_back()
        self.steps.later(f"UPDATE {TABLE} SET {', '.join(fed_back.values())} WHERE {self.columns.changed_since()}")
        for key in self.older.constraints:
            if key.kind == "f" and not self._hinders(key) and not key.columns.isdisjoint(fed_back):
                self.steps.later(f"{ALTER} DROP CONSTRAINT {quoted(key.name)}")
        self.steps.later(FUNCTIONS)
        given = self.columns.values.given()
        # One rewrite of the table, which leaves no dead rows behind, as an UPDATE of all rows would.
        filled = [
            f"{name} TYPE {wanted.type} USING ({given[name]})" for name, wanted in columns.items() if name in given
        ]
        filled.append(f"{MARK} TYPE text USING ({given['status']})")
        self.steps.do(f"{ALTER} {', '.join(f'ALTER COLUMN {each}' for each in filled)}")
        if not self.keeps_primary_key:  # at once: a table in a publication is not updated without one
            self.steps.do(f"{ALTER} ADD CONSTRAINT {PRIMARY_KEY} {self.constraints[PRIMARY_KEY]}")
        self.steps.do(SUPERSEDED)
        self.steps.do(PAID_TWICE)

    def _finish(self) -> None:
        """Hold the table to what is wanted, in one pass over the rows."""
        changes = []
        for name, wanted in self.wanted.items():
            column = next((self.older.columns[older] for older, now in self.columns.kept.items() if now == name), None)
            if wanted.default is not None:
                changes.append(f"ALTER COLUMN {name} SET DEFAULT {wanted.default}")
                if column:
                    self.steps.later(f"{ALTER} ALTER COLUMN {name} DROP DEFAULT")
            if name != "id" and not wanted.nullable and not (column and column.not_null):
                changes.append(f"ALTER COLUMN {name} SET NOT NULL")
                if column:
                    self.steps.later(f"{ALTER} ALTER COLUMN {name} DROP NOT NULL")
        unpaid = run(self.connection, UNPAID).scalar_one()
        if unpaid:
            log.warning("Older sessions completed without a payment reference stay so; new ones cannot.")
        for name, rule in self.constraints.items():
            if name == PRIMARY_KEY:
                continue
            lenient = " NOT VALID" if unpaid and name == f"ck_{TABLE}_payment_reference" else ""
            changes.append(f"ADD CONSTRAINT {name} {rule}{lenient}")
            self.steps.later(f"{ALTER} DROP CONSTRAINT {name}")
        self.steps.do(f"{ALTER} {', '.join(changes)}")
        self.steps.do(self.indexes, f"DROP INDEX {', '.join(self.index_names)}")
        run(self.connection, f"ANALYZE {TABLE}")

    def kept_names(self, trigger: str) -> list[str]:
        """The names of what is left of the older table: columns, indexes, constraints, triggers."""
        ours = {*self.wanted, *self.constraints, *self.index_names, trigger}
        return sorted(name for (name,) in run(self.connection, NAMES) if name not in ours)


def _create_policy(policy: Policy, words: Mapping[str, str] | None = None) -> str:
    """The statement that makes it, with columns replaced by `words`."""

    def translated(expression: str) -> str:
        for name, value in (words or {}).items():
            expression = re.sub(rf"\b(?:{TABLE}\.)?{name}\b", value.replace("\\", r"\\"), expression)
        return expression

    kind = "PERMISSIVE" if policy.permissive else "RESTRICTIVE"
    using = f" USING ({translated(policy.using)})" if policy.using else ""
    check = f" WITH CHECK ({translated(policy.check)})" if policy.check else ""
    return (
        f"CREATE POLICY {quoted(policy.name)} ON {TABLE} AS {kind} FOR {policy.command} TO {policy.roles}{using}{check}"
    )
