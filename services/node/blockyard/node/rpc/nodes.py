"""NodeService: its parts put together."""

from blockyard.node.rpc.catalogue_calls import CatalogueCalls
from blockyard.node.rpc.graph_calls import GraphCalls
from blockyard.node.rpc.image_calls import ImageCalls
from blockyard.node.rpc.operation_calls import OperationCalls
from blockyard.node.rpc.service_calls import ServiceCalls
from blockyard.node.rpc.surgery_calls import SurgeryCalls
from blockyard.node.rpc.transactions import TransactionCalls
from blockyard.v1.node_pb2_grpc import NodeServiceServicer


class NodeServicer(
    GraphCalls,
    SurgeryCalls,
    TransactionCalls,
    ImageCalls,
    OperationCalls,
    ServiceCalls,
    CatalogueCalls,
    NodeServiceServicer,
):
    """Every method is in one of the parts; a test finds one that is missing."""
