"""Exports as actions of a transaction (`graph.transaction`): a disk appears to guests, or goes, with the change."""

from blockyard.node.exports.exports import Exports
from blockyard.node.exports.nbd import Address, ExportConfig
from blockyard.node.graph.transaction import Action, Plan


class CreateExport(Action):
    """Serve a node or an attachment. Guests come in when the transaction stands; until then their requests wait at
    the node."""

    def __init__(
        self,
        exports: Exports,
        export_id: str,
        node_name: str,
        config: ExportConfig,
        addresses: list[Address],
        attachment: str = "",
    ) -> None:
        self._exports = exports
        self._wanted = export_id, node_name, config, addresses, attachment
        self._made = ""

    def apply(self, plan: Plan) -> None:
        export_id, node_name, config, _, attachment = self._wanted
        self._exports.check_free(export_id, config)
        if attachment:
            self._exports.check_attachment(attachment, config)
        else:
            plan.get(node_name)

    async def switch(self, plan: Plan) -> None:
        export = await self._exports.create(*self._wanted, validate_only=False, durable=False)
        self._made = export.export_id

    async def switch_back(self, plan: Plan) -> None:
        await self._exports.end(self._made, force=True)


class DeleteExport(Action):
    """Serve a node no longer."""

    def __init__(self, exports: Exports, export_id: str, *, force: bool = False) -> None:
        self._exports = exports
        self._export_id = export_id
        self._force = force

    def apply(self, plan: Plan) -> None:
        self._exports.check_deletable(self._export_id, force=self._force)

    async def switch(self, plan: Plan) -> None:
        self._exports.leave(self._export_id)

    async def switch_back(self, plan: Plan) -> None:
        self._exports.stay(self._export_id)

    async def commit(self, plan: Plan) -> None:
        await self._exports.end(self._export_id, force=self._force)
