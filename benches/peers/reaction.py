"""The steps of a rollback with boto3, for events that are all believed; reads go out side by side. Until it is killed."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import boto3

url = sys.argv[1]
sqs, ecs, elb = boto3.client("sqs"), boto3.client("ecs"), boto3.client("elbv2")
pool = ThreadPoolExecutor(8)
ARN = "arn:aws:elasticloadbalancing:eu-west-1:111122223333"
RULES = 50


def side_by_side(*calls):
    for future in [pool.submit(call) for call in calls]:
        future.result()


def roll_back(event):
    detail = event["detail"]
    name = detail["group"].removeprefix("service:")
    number = int(name.removeprefix("service-"))
    balancer = number // RULES
    blue, green = (f"{ARN}:targetgroup/s{number}-{colour}/1a2b" for colour in ("blue", "green"))
    listener = f"{ARN}:listener/app/edge-{balancer}/{balancer}/{balancer}"
    services = lambda: ecs.describe_services(cluster="prod", services=[name])
    rules = lambda: elb.describe_rules(ListenerArn=listener)
    side_by_side(
        services,
        lambda: ecs.describe_tasks(cluster="prod", tasks=[detail["taskArn"]]),
        rules,
        lambda: elb.describe_target_health(TargetGroupArn=blue),
        lambda: elb.describe_target_health(TargetGroupArn=green),
    )
    groups = [{"TargetGroupArn": blue, "Weight": 100}, {"TargetGroupArn": green, "Weight": 0}]
    elb.modify_rule(
        RuleArn=f"{ARN}:listener-rule/app/edge-{balancer}/{balancer}/{balancer}/{number}",
        Actions=[{"Type": "forward", "ForwardConfig": {"TargetGroups": groups}}],
    )
    task_set = detail["startedBy"]
    side_by_side(rules, services, lambda: ecs.describe_task_sets(cluster="prod", service=name, taskSets=[task_set]))
    ecs.delete_task_set(cluster="prod", service=name, taskSet=task_set, force=True)


while True:
    for message in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=10).get("Messages", []):
        roll_back(json.loads(message["Body"]))
        sqs.delete_message_batch(QueueUrl=url, Entries=[{"Id": "0", "ReceiptHandle": message["ReceiptHandle"]}])
