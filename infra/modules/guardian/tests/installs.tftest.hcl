# What is created, for each combination of variables that matters. Nothing is called: the provider is a mock.

mock_provider "aws" {
  source = "./tests/mock"
}

override_resource {
  target = aws_sqs_queue.dead_letters
  values = {
    id  = "https://sqs.eu-west-1.amazonaws.com/111122223333/dead-letters"
    arn = "arn:aws:sqs:eu-west-1:111122223333:dead-letters"
  }
}

variables {
  clusters       = ["prod"]
  load_balancers = ["arn:aws:elasticloadbalancing:eu-west-1:111122223333:loadbalancer/app/web/50dc6c495c0c9188"]
  image          = "registry.example.com/taskset-guardian:1.0.0"
  vpc_id         = "vpc-0123456789abcdef0"
  subnet_ids     = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
  rules          = { "web.toml" = "name = \"web\"\n" }
}

run "by_default_two_replicas_share_a_table" {
  assert {
    condition     = jsonencode(output.table_names) == jsonencode({ all = "taskset-guardian" }) && jsonencode(keys(output.queue_urls)) == jsonencode(["all"])
    error_message = "one cell, named after the module: ${jsonencode(output.table_names)}"
  }

  assert {
    condition     = aws_ecs_service.this["all"].desired_count == 2 && aws_ecs_service.this["all"].deployment_minimum_healthy_percent == 100 && aws_ecs_service.this["all"].deployment_maximum_percent == 200
    error_message = "replicas with a lease may overlap"
  }

  assert {
    condition     = output.settings["all"].TASKSET_GUARDIAN_STATE == "dynamodb://taskset-guardian" && output.settings["all"].TASKSET_GUARDIAN_DRY_RUN == "false"
    error_message = "the worker acts, on the table"
  }

  assert {
    condition     = jsondecode(output.settings["all"].TASKSET_GUARDIAN_RULE_FILES) == { "web.toml" = "name = \"web\"\n" }
    error_message = "rule files arrive as they are"
  }

  assert {
    condition     = output.settings["all"].TASKSET_GUARDIAN_ONLY == "prod/*"
    error_message = "the worker keeps to what its role allows"
  }

  assert {
    condition = alltrue([
      aws_sqs_queue.events["all"].sqs_managed_sse_enabled,
      aws_sqs_queue.events["all"].message_retention_seconds >= 345600,
      aws_sqs_queue.dead_letters["all"].message_retention_seconds == 1209600,
      jsondecode(aws_sqs_queue.events["all"].redrive_policy).maxReceiveCount == 5,
      jsondecode(aws_sqs_queue.events["all"].redrive_policy).deadLetterTargetArn == aws_sqs_queue.dead_letters["all"].arn,
      aws_dynamodb_table.journal["all"].hash_key == "pk",
      aws_dynamodb_table.journal["all"].range_key == "sk",
      aws_dynamodb_table.journal["all"].ttl[0].attribute_name == "expires_at",
      aws_dynamodb_table.journal["all"].point_in_time_recovery[0].enabled,
    ])
    error_message = "queue, dead letters and table are as promised"
  }

  assert {
    condition = alltrue([
      for container in jsondecode(aws_ecs_task_definition.this["all"].container_definitions) : alltrue([
        container.readonlyRootFilesystem,
        container.user == "65532:65532",
        container.stopTimeout >= 60,
        container.healthCheck.command == ["CMD", "taskset-guardian", "healthcheck"],
        container.mountPoints == [],
        container.linuxParameters.capabilities.drop == ["ALL"],
      ])
    ])
    error_message = "the container is locked down, and asked whether it is well"
  }

  assert {
    condition     = length(output.alarm_arns["all"]) == 3 && aws_cloudwatch_metric_alarm.dead["all"].treat_missing_data == "breaching"
    error_message = "a guardian that is dead is not quiet"
  }

  assert {
    condition     = jsondecode(aws_cloudwatch_event_rule.announcements.event_pattern) == { source = ["taskset-guardian"], detail-type = ["Rollback Started", "Rollback Completed", "Rollback Escalated", "Rollback Held"] }
    error_message = "what it tells goes to the topic"
  }

  assert {
    condition     = { for one in jsondecode(aws_sns_topic_policy.this.policy).Statement : one.Sid => can(one.Condition) } == { OwnEvents = false, OwnAlarms = true, OnlyEncrypted = true }
    error_message = "a condition would keep EventBridge out; others have theirs: ${aws_sns_topic_policy.this.policy}"
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.announcements.dimensions == tomap({ RuleName = "taskset-guardian-announcements" })
    error_message = "a rule of the default bus is counted by its name alone"
  }

  assert {
    condition = alltrue([
      for statement in jsondecode(aws_sns_topic_policy.this.policy).Statement :
      can(regex("^${replace(statement.Condition.ArnLike["aws:SourceArn"], "*", ".*")}$", "arn:aws:cloudwatch:eu-west-1:111122223333:alarm:${aws_cloudwatch_metric_alarm.announcements.alarm_name}"))
      if statement.Sid == "OwnAlarms"
    ]) && aws_cloudwatch_metric_alarm.announcements.alarm_actions == toset([output.topic_arn])
    error_message = "that it was not heard is heard, by the statement for alarms"
  }
}

run "the_queue_takes_events_of_its_own_rules_alone" {
  assert {
    condition = alltrue([
      for policy in values(aws_sqs_queue_policy.this) : jsondecode(policy.policy).Statement[0].Condition.ArnEquals["aws:SourceArn"] == output.event_rule_arns["all"]
    ])
    error_message = "both queues name the three rules"
  }

  assert {
    condition     = length(output.event_rule_arns["all"]) == 3 && length(aws_sqs_queue_policy.this) == 2
    error_message = "three rules, two queues"
  }

  assert {
    condition = alltrue([
      for policy in values(aws_sqs_queue_policy.this) : [for one in jsondecode(policy.policy).Statement : one.Effect] == ["Allow", "Deny", "Deny"]
    ])
    error_message = "others, and those who don't encrypt, are refused"
  }

  assert {
    condition = alltrue([
      for target in values(aws_cloudwatch_event_target.this) : target.dead_letter_config[0].arn == aws_sqs_queue.dead_letters["all"].arn && length(target.input_transformer) == 0
    ])
    error_message = "events come whole, or become dead letters"
  }
}

run "patterns_are_narrow" {
  variables {
    clusters    = ["prod", "edge"]
    services    = ["checkout", "web-*"]
    alarm_names = ["checkout-*", "edge-5xx"]
  }

  assert {
    condition = jsondecode(output.event_patterns["all"].tasks) == {
      source      = ["aws.ecs"]
      detail-type = ["ECS Task State Change"]
      detail = {
        clusterArn = ["arn:aws:ecs:eu-west-1:111122223333:cluster/prod", "arn:aws:ecs:eu-west-1:111122223333:cluster/edge"]
        group      = ["service:checkout", { prefix = "service:web-" }]
        lastStatus = ["RUNNING", "DEACTIVATING", "STOPPING", "DEPROVISIONING", "STOPPED"]
      }
    }
    error_message = output.event_patterns["all"].tasks
  }

  assert {
    condition = jsondecode(output.event_patterns["all"].services) == {
      source      = ["aws.ecs"]
      detail-type = ["ECS Service Action"]
      detail      = { clusterArn = ["arn:aws:ecs:eu-west-1:111122223333:cluster/prod", "arn:aws:ecs:eu-west-1:111122223333:cluster/edge"] }
      resources = [
        "arn:aws:ecs:eu-west-1:111122223333:service/prod/checkout",
        { prefix = "arn:aws:ecs:eu-west-1:111122223333:service/prod/web-" },
        "arn:aws:ecs:eu-west-1:111122223333:service/edge/checkout",
        { prefix = "arn:aws:ecs:eu-west-1:111122223333:service/edge/web-" },
      ]
    }
    error_message = output.event_patterns["all"].services
  }

  assert {
    condition = jsondecode(output.event_patterns["all"].alarms) == {
      source      = ["aws.cloudwatch"]
      detail-type = ["CloudWatch Alarm State Change", "CloudWatch Alarm Configuration Change"]
      detail      = { alarmName = [{ prefix = "checkout-" }, "edge-5xx"] }
    }
    error_message = output.event_patterns["all"].alarms
  }

  assert {
    condition     = output.settings["all"].TASKSET_GUARDIAN_ONLY == "prod/checkout,prod/web-*,edge/checkout,edge/web-*"
    error_message = output.settings["all"].TASKSET_GUARDIAN_ONLY
  }
}

run "the_role_reaches_what_it_guards_and_no_further" {
  variables {
    clusters = ["prod", "edge"]
    services = ["checkout", "web-*"]
  }

  assert {
    condition = { for one in jsondecode(output.worker_policies["all"]).Statement : one.Sid => one.Resource if startswith(one.Sid, "Rollback") } == {
      RollbackServices = [
        "arn:aws:ecs:eu-west-1:111122223333:service/prod/checkout",
        "arn:aws:ecs:eu-west-1:111122223333:service/prod/web-*",
        "arn:aws:ecs:eu-west-1:111122223333:service/edge/checkout",
        "arn:aws:ecs:eu-west-1:111122223333:service/edge/web-*",
      ]
      RollbackTaskSets = [
        "arn:aws:ecs:eu-west-1:111122223333:task-set/prod/checkout/*",
        "arn:aws:ecs:eu-west-1:111122223333:task-set/prod/web-*/*",
        "arn:aws:ecs:eu-west-1:111122223333:task-set/edge/checkout/*",
        "arn:aws:ecs:eu-west-1:111122223333:task-set/edge/web-*/*",
      ]
      RollbackRules     = ["arn:aws:elasticloadbalancing:eu-west-1:111122223333:listener-rule/app/web/50dc6c495c0c9188/*"]
      RollbackListeners = ["arn:aws:elasticloadbalancing:eu-west-1:111122223333:listener/app/web/50dc6c495c0c9188/*"]
      RollbackUserPools = ["arn:aws:cognito-idp:eu-west-1:111122223333:userpool/*"]
    }
    error_message = output.worker_policies["all"]
  }

  assert {
    condition = alltrue([
      for one in jsondecode(output.worker_policies["all"]).Statement : alltrue([for action in one.Action : !strcontains(action, "*")])
    ])
    error_message = "every action is named"
  }

  assert {
    condition = [
      for one in jsondecode(output.worker_policies["all"]).Statement : one.Condition.ArnEquals["ecs:cluster"] if one.Sid == "ReadClusters"
    ] == [["arn:aws:ecs:eu-west-1:111122223333:cluster/prod", "arn:aws:ecs:eu-west-1:111122223333:cluster/edge"]]
    error_message = "services and tasks are listed in these clusters alone"
  }

  assert {
    condition     = !can(regex("[{][A-Z_]+[}]", "${output.worker_policies["all"]} ${output.people_policies["all"]}"))
    error_message = "a placeholder is left"
  }
}

run "a_name_may_hold_the_words_of_the_policy" {
  variables {
    clusters       = ["MICROSERVICES", "BUSINESS"]
    services       = ["checkout"]
    event_bus_name = "CLUSTER-TABLE"
  }

  assert {
    condition = { for one in jsondecode(output.worker_policies["all"]).Statement : one.Sid => one.Resource if contains(["ReadServices", "Announce"], one.Sid) } == {
      ReadServices = [
        "arn:aws:ecs:eu-west-1:111122223333:service/MICROSERVICES/checkout",
        "arn:aws:ecs:eu-west-1:111122223333:service/BUSINESS/checkout",
      ]
      Announce = ["arn:aws:events:eu-west-1:111122223333:event-bus/CLUSTER-TABLE"]
    }
    error_message = output.worker_policies["all"]
  }

  assert {
    condition = [
      for one in jsondecode(output.worker_policies["all"]).Statement : one.Condition.ArnEquals["ecs:cluster"] if one.Sid == "ReadClusters"
    ] == [["arn:aws:ecs:eu-west-1:111122223333:cluster/MICROSERVICES", "arn:aws:ecs:eu-west-1:111122223333:cluster/BUSINESS"]]
    error_message = output.worker_policies["all"]
  }
}

run "an_observer_is_denied_every_change" {
  variables {
    observe_only = true
  }

  assert {
    condition     = output.settings["all"].TASKSET_GUARDIAN_DRY_RUN == "true"
    error_message = "the worker knows"
  }

  assert {
    condition = [for one in jsondecode(output.worker_policies["all"]).Statement : one if one.Effect == "Deny"] == [{
      Sid    = "ChangeNothing"
      Effect = "Deny"
      Action = [
        "ecs:UpdateServicePrimaryTaskSet", "ecs:UpdateTaskSet", "ecs:DeleteTaskSet",
        "elasticloadbalancing:ModifyRule", "elasticloadbalancing:ModifyListener", "cognito-idp:DescribeUserPoolClient",
      ]
      Resource = ["*"]
    }]
    error_message = output.worker_policies["all"]
  }

  assert {
    condition     = length([for one in jsondecode(output.worker_policies["all"]).Statement : one if startswith(one.Sid, "Rollback")]) == 0
    error_message = "and nothing allows what is denied"
  }
}

run "without_a_load_balancer_no_rule_can_be_changed" {
  variables {
    load_balancers = []
  }

  assert {
    condition     = [for one in jsondecode(output.worker_policies["all"]).Statement : one.Sid if startswith(one.Sid, "Rollback")] == ["RollbackServices", "RollbackTaskSets"]
    error_message = output.worker_policies["all"]
  }
}

run "without_a_table_one_replica_is_alone_and_its_journal_is_on_its_disk" {
  variables {
    replicas = 1
    table    = false
  }

  assert {
    condition     = length(aws_dynamodb_table.journal) == 0 && !strcontains(output.worker_policies["all"], "dynamodb:")
    error_message = "no table, and no right to one"
  }

  assert {
    condition     = aws_ecs_service.this["all"].desired_count == 1 && aws_ecs_service.this["all"].deployment_minimum_healthy_percent == 0 && aws_ecs_service.this["all"].deployment_maximum_percent == 100
    error_message = "two workers must never run at once"
  }

  assert {
    condition     = output.settings["all"].TASKSET_GUARDIAN_STATE == "/data/guardian.redb" && jsondecode(aws_ecs_task_definition.this["all"].container_definitions)[0].mountPoints[0].containerPath == "/data"
    error_message = "the one place that it can write to"
  }
}

run "one_replica_may_have_the_table" {
  variables {
    replicas = 1
  }

  assert {
    condition     = aws_ecs_service.this["all"].desired_count == 1 && output.settings["all"].TASKSET_GUARDIAN_STATE == "dynamodb://taskset-guardian"
    error_message = "its journal survives its task"
  }
}

run "who_changes_rules_is_heard_of_when_it_is_wanted" {
  variables {
    cloudtrail = true
  }

  assert {
    condition     = jsondecode(output.event_patterns["all"].calls) == jsondecode(file("./cloudtrail-pattern.json")) && length(output.event_rule_arns["all"]) == 4
    error_message = output.event_patterns["all"].calls
  }

  assert {
    condition     = output.settings["all"].TASKSET_GUARDIAN_ELB_READS == "8"
    error_message = output.settings["all"].TASKSET_GUARDIAN_ELB_READS
  }
}

run "each_shard_is_a_cell" {
  variables {
    shards = {
      a-m = ["checkout", "a*"]
      n-z = ["web-*"]
    }
  }

  assert {
    condition     = jsonencode(output.table_names) == jsonencode({ a-m = "taskset-guardian-a-m", n-z = "taskset-guardian-n-z" }) && jsonencode(keys(output.queue_urls)) == jsonencode(["a-m", "n-z"])
    error_message = "a queue and a table each"
  }

  assert {
    condition     = length(aws_ecs_service.this) == 2 && length(aws_iam_role.worker) == 2 && length(aws_cloudwatch_event_rule.this) == 6
    error_message = "replicas, a role and three rules each"
  }

  assert {
    condition     = jsondecode(output.event_patterns["a-m"].tasks).detail.group == ["service:checkout", { prefix = "service:a" }] && jsondecode(output.event_patterns["n-z"].tasks).detail.group == [{ prefix = "service:web-" }]
    error_message = "each hears its own services"
  }

  assert {
    condition     = output.settings["a-m"].TASKSET_GUARDIAN_ELB_READS == "4" && output.settings["n-z"].TASKSET_GUARDIAN_ELB_READS == "4"
    error_message = "they share what AWS lets an account read"
  }

  assert {
    condition     = output.event_patterns["a-m"].alarms == output.event_patterns["n-z"].alarms
    error_message = "and all alarms"
  }

  assert {
    condition     = output.settings["a-m"].TASKSET_GUARDIAN_ONLY == "prod/checkout,prod/a*" && output.settings["n-z"].TASKSET_GUARDIAN_ONLY == "prod/web-*"
    error_message = "each guards its own services"
  }

  assert {
    condition     = strcontains(output.worker_policies["n-z"], "task-set/prod/web-*/*") && !strcontains(output.worker_policies["n-z"], "checkout")
    error_message = "and its role reaches no other's"
  }

  assert {
    condition     = jsondecode(aws_sqs_queue_policy.this["n-z/events"].policy).Statement[0].Condition.ArnEquals["aws:SourceArn"] == output.event_rule_arns["n-z"]
    error_message = "a queue takes the events of its own rules"
  }
}

run "a_key_of_ones_own_encrypts_everything" {
  variables {
    kms_key_arn = "arn:aws:kms:eu-west-1:111122223333:key/8f1c7a3e-0000-4000-8000-000000000000"
  }

  assert {
    condition = alltrue([
      for key in concat(
        values(aws_sqs_queue.events)[*].kms_master_key_id,
        values(aws_sqs_queue.dead_letters)[*].kms_master_key_id,
        values(aws_cloudwatch_log_group.this)[*].kms_key_id,
        [aws_dynamodb_table.journal["all"].server_side_encryption[0].kms_key_arn, aws_sns_topic.this.kms_master_key_id],
      ) : key == var.kms_key_arn
    ])
    error_message = "queues, logs, table and topic"
  }

  assert {
    condition     = strcontains(output.worker_policies["all"], "kms:Decrypt")
    error_message = "the worker can read what was encrypted"
  }
}

run "an_image_of_ecr_may_be_fetched_and_no_other" {
  variables {
    image = "444455556666.dkr.ecr.eu-west-1.amazonaws.com/ops/taskset-guardian@sha256:0123"
  }

  assert {
    condition     = [for one in jsondecode(aws_iam_role_policy.start.policy).Statement : one.Resource if one.Sid == "Image"] == [["arn:aws:ecr:eu-west-1:444455556666:repository/ops/taskset-guardian"]]
    error_message = aws_iam_role_policy.start.policy
  }
}

run "an_image_of_elsewhere_needs_no_permission" {
  assert {
    condition     = [for one in jsondecode(aws_iam_role_policy.start.policy).Statement : one.Sid] == ["Logs"]
    error_message = aws_iam_role_policy.start.policy
  }
}

run "who_subscribes_and_who_scrapes" {
  variables {
    subscriptions              = { on-call = { protocol = "email", endpoint = "on-call@example.com" } }
    scraper_security_group_ids = ["sg-0123456789abcdef0"]
    alarm_actions              = ["arn:aws:sns:eu-west-1:111122223333:on-call"]
    notify                     = ["Rollback Escalated"]
    event_bus_name             = "ops"
  }

  assert {
    condition     = aws_sns_topic_subscription.this["on-call"].endpoint == "on-call@example.com" && aws_vpc_security_group_ingress_rule.scrapers[0].from_port == 9464
    error_message = "both"
  }

  assert {
    condition     = length(aws_cloudwatch_metric_alarm.lag["all"].alarm_actions) == 2 && length(aws_cloudwatch_metric_alarm.announcements.alarm_actions) == 2
    error_message = "alarms go to the topic and to others"
  }

  assert {
    condition     = aws_cloudwatch_event_rule.announcements.event_bus_name == "ops" && output.settings["all"].TASKSET_GUARDIAN_EVENT_BUS == "ops" && strcontains(output.worker_policies["all"], "event-bus/ops")
    error_message = "it tells on the bus that is listened to"
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.announcements.dimensions == tomap({ EventBusName = "ops", RuleName = "taskset-guardian-announcements" })
    error_message = "and what is not delivered from there is counted by bus and rule"
  }
}
