"""Serves moto on a free port, with ECS tasks that belong to their task sets and can fail.

Prints one line of JSON: the endpoint, and the network that moto's default VPC offers. Ends when its stdin ends, so it
never outlives the test. What it adds to moto, and why, is listed in ../moto.rs.
"""

import json
import math
import sys

from moto.core.utils import utcnow
from moto.ec2.models import ec2_backends
from moto.ecs.models import EC2ContainerServiceBackend, Task, TaskSet
from moto.events.models import Rule
from moto.events.utils import EventTemplateParser
from moto.moto_api import state_manager
from moto.moto_server.threaded_moto_server import ThreadedMotoServer
from moto.sns.models import sns_backends
from moto.sqs.models import Queue
from moto.utilities.arns import parse_arn

ACCOUNT = "123456789012"
REGION = "eu-west-1"

create_task_set = EC2ContainerServiceBackend.create_task_set
update_task_set = EC2ContainerServiceBackend.update_task_set
stop_task = EC2ContainerServiceBackend.stop_task
create_service = EC2ContainerServiceBackend.create_service
send_to_targets = Rule.send_to_targets
set_attributes = Queue._set_attributes


def start_tasks(ecs, task_set, count):
    tasks = ecs.run_task(
        cluster_str=task_set.cluster,
        task_definition_str=task_set.task_definition,
        count=count,
        overrides=None,
        started_by=task_set.id,
        tags=None,
        launch_type=task_set.launch_type,
        networking_configuration=task_set.network_configuration,
        group=f"service:{task_set.service}",
    )
    for task in tasks:
        task.version = 1
        # Numbers where AWS has texts: the Rust SDK refuses the whole answer.
        for container in task.containers:
            container.cpu, container.memory = str(container.cpu), str(container.memory)


def name(name_or_arn):
    return name_or_arn.split("/")[-1]


def running(ecs, task_set):
    tasks = ecs.list_tasks(started_by=task_set.id, desiredStatus="RUNNING")
    return len(tasks)


def scale_to(ecs, task_set, scale):
    task_set.scale = scale
    desired = ecs.services[f"{task_set.cluster}:{task_set.service}"].desired_count
    task_set.computed_desired_count = math.ceil(desired * scale["value"] / 100)
    missing = task_set.computed_desired_count - running(ecs, task_set)
    if missing > 0:
        start_tasks(ecs, task_set, missing)
    for task in ecs.list_tasks(started_by=task_set.id, desiredStatus="RUNNING")[: max(-missing, 0)]:
        stop_task(ecs, task_set.cluster, task.task_arn, "Scaling activity initiated by (deployment)")


def create_task_set_with_tasks(ecs, service, cluster_str, task_definition, scale, **options):
    """Without a scale moto starts no tasks, so those it would start for nobody are not there."""
    task_set = create_task_set(ecs, name(service), name(cluster_str), task_definition, **options)
    task_set.backend = ecs
    scale_to(ecs, task_set, scale)
    return task_set


def update_task_set_with_tasks(ecs, cluster_str, service, task_set, scale):
    updated = update_task_set(ecs, cluster_str, service, task_set, scale)
    scale_to(ecs, updated, scale)
    return updated


def stop_task_as_failed(ecs, cluster_str, task_str, reason):
    """The task ends by itself, and its task set starts another."""
    task = stop_task(ecs, cluster_str, task_str, reason)
    task.version += 1
    task.stop_code = "EssentialContainerExited"
    task.stopping_at = task.stopped_at = utcnow()
    for container in task.containers:
        container.last_status = "STOPPED"
        container.exitCode = 1
    for service in ecs.services.values():
        for task_set in service.task_sets:
            if task_set.id == task.started_by:
                start_tasks(ecs, task_set, 1)
    return task


def create_service_as_asked(ecs, *args, **options):
    service = create_service(ecs, *args, **options)
    # Terraform's provider ends by a nil pointer when there is one without its parts.
    service.network_configuration = service.network_configuration or None
    return service


def send_to_topics_too(rule, original_event, transform_input=True):
    topics = [target for target in rule.targets if parse_arn(target["Arn"]).service == "sns"]
    if topics and rule.event_pattern.matches_event(original_event):
        for target in topics:
            topic = sns_backends[ACCOUNT][REGION].get_topic(target["Arn"])
            topic.publish(json.dumps(original_event))
    others = [target for target in rule.targets if target not in topics]
    if others:
        all_targets, rule.targets = rule.targets, others
        try:
            send_to_targets(rule, original_event, transform_input)
        finally:
            rule.targets = all_targets


def set_attributes_and_keep_the_policy(queue, attributes, now=None):
    policy = getattr(queue, "policy", None)
    set_attributes(queue, attributes, now)
    if "Policy" not in attributes:
        queue.policy = policy


def main():
    EC2ContainerServiceBackend.create_service = create_service_as_asked
    Rule.send_to_targets = send_to_topics_too
    Queue._set_attributes = set_attributes_and_keep_the_policy
    # An empty one takes it away.
    Queue.redrive_allow_policy = property(
        lambda queue: vars(queue).get("allowed") or None,
        lambda queue, policy: vars(queue).update(allowed=policy),
    )
    Queue.BASE_ATTRIBUTES = [*Queue.BASE_ATTRIBUTES, "RedriveAllowPolicy"]
    EC2ContainerServiceBackend.create_task_set = create_task_set_with_tasks
    EC2ContainerServiceBackend.update_task_set = update_task_set_with_tasks
    EC2ContainerServiceBackend.stop_task = stop_task_as_failed
    TaskSet.running_count = property(lambda task_set: running(task_set.backend, task_set))
    template = EventTemplateParser.DEFAULT_EVENT_INPUT_TEMPLATE
    EventTemplateParser.DEFAULT_EVENT_INPUT_TEMPLATE = template.replace("{", '{"account": "<account>", ', 1)
    # Left alone, every DescribeTasks brings a task one step nearer to its end.
    state_manager.set_transition("ecs::task", {"progression": "manual", "times": sys.maxsize})

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    ec2 = ec2_backends[ACCOUNT][REGION]
    vpc = ec2.get_default_vpc()
    subnets = [subnet.id for subnet in ec2.describe_subnets() if subnet.vpc_id == vpc.id]
    groups = [group.id for group in ec2.describe_security_groups() if group.vpc_id == vpc.id]
    endpoint = f"http://{host}:{port}"
    print(json.dumps({"endpoint": endpoint, "vpc": vpc.id, "subnets": subnets, "security_groups": groups}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
