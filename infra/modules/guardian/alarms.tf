# Who guards the guardian: AWS alone, so that it works when nothing of the guardian does.

# A living worker polls its queue all the time, so that even a quiet one shows empty receives.
resource "aws_cloudwatch_metric_alarm" "dead" {
  for_each = local.cells

  alarm_name          = "${each.value.name}-dead"
  alarm_description   = "Nobody has read the queue of ${each.value.name} for five minutes: no deployment is guarded. Look at the tasks of its service and their logs."
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  evaluation_periods  = 5
  datapoints_to_alarm = 5
  treat_missing_data  = "breaching"
  alarm_actions       = local.alarm_actions
  ok_actions          = local.alarm_actions

  metric_query {
    id          = "polls"
    label       = "Receives"
    expression  = "FILL(empty, 0) + FILL(full, 0)"
    return_data = true
  }

  dynamic "metric_query" {
    for_each = { empty = "NumberOfEmptyReceives", full = "NumberOfMessagesReceived" }

    content {
      id = metric_query.key

      metric {
        namespace   = "AWS/SQS"
        metric_name = metric_query.value
        dimensions  = { QueueName = aws_sqs_queue.events[each.key].name }
        period      = 60
        stat        = "Sum"
      }
    }
  }

  tags = local.tags
}

resource "aws_cloudwatch_metric_alarm" "lag" {
  for_each = local.cells

  alarm_name          = "${each.value.name}-lag"
  alarm_description   = "The oldest event in the queue of ${each.value.name} has waited for more than ${var.lag_alarm} s. Deployments are guarded by the sweep alone, later. docs/runbooks/TasksetGuardianQueueLag.md says what to do."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateAgeOfOldestMessage"
  dimensions          = { QueueName = aws_sqs_queue.events[each.key].name }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 3
  datapoints_to_alarm = 3
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.lag_alarm
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_actions
  ok_actions          = local.alarm_actions

  tags = local.tags
}

resource "aws_cloudwatch_metric_alarm" "dead_letters" {
  for_each = local.cells

  alarm_name          = "${each.value.name}-dead-letters"
  alarm_description   = "${aws_sqs_queue.dead_letters[each.key].name} is not empty: events that could not be delivered (their message attributes say why) or not be read (the worker's log says why). Nothing is lost by it but time: the sweep has read what they said."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateNumberOfMessagesVisible"
  dimensions          = { QueueName = aws_sqs_queue.dead_letters[each.key].name }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.alarm_actions
  ok_actions          = local.alarm_actions

  tags = local.tags
}

# What the guardian tells is lost when it can't be delivered. CloudWatch publishes by a statement of its own, so that this
# arrives even where the topic, or its key, refuses EventBridge.
resource "aws_cloudwatch_metric_alarm" "announcements" {
  alarm_name        = "${var.name}-announcements"
  alarm_description = "EventBridge could not deliver what ${var.name} told, and nobody heard it: taskset-guardian status says what is open. Look at the policies of ${aws_sns_topic.this.name} and of its key."
  namespace         = "AWS/Events"
  metric_name       = "FailedInvocations"
  # Rules of the default bus are counted without its name.
  dimensions = merge(
    { RuleName = aws_cloudwatch_event_rule.announcements.name },
    { for bus in [var.event_bus_name] : "EventBusName" => bus if bus != "default" },
  )
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  # Only failures are counted, so it ends when there is no more to count. Nothing is well again by that: nobody is told.
  treat_missing_data = "notBreaching"
  alarm_actions      = local.alarm_actions

  tags = local.tags
}

locals {
  alarm_actions = concat([aws_sns_topic.this.arn], var.alarm_actions)
}
