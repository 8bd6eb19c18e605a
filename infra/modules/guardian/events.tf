# What goes to the queues. event-pattern.json says which events the worker reads; here they are narrowed to the clusters,
# to the services of a cell and to the alarms that are wanted.

locals {
  read = jsondecode(file("${path.module}/event-pattern.json"))["$or"]

  task_events    = one([for pattern in local.read : pattern if contains(pattern["detail-type"], "ECS Task State Change")])
  service_events = one([for pattern in local.read : pattern if contains(pattern["detail-type"], "ECS Service Action")])
  alarm_events   = one([for pattern in local.read : pattern if contains(pattern["detail-type"], "CloudWatch Alarm State Change")])

  service_arns = {
    for cell, each in local.cells : cell => [
      for pair in setproduct(local.cluster_arns, each.services) : "${replace(pair[0], ":cluster/", ":service/")}/${pair[1]}"
    ]
  }

  # How EventBridge writes a name, and a prefix. By way of JSON, for the two have different types.
  matcher = {
    for name in distinct(flatten([var.alarm_names, values(local.service_arns), [for cell in values(local.cells) : formatlist("service:%s", cell.services)]])) :
    name => jsondecode(endswith(name, "*") ? jsonencode({ prefix = trimsuffix(name, "*") }) : jsonencode(name))
  }

  patterns = {
    for cell, each in local.cells : cell => merge({
      tasks = merge(local.task_events, {
        detail = merge(local.task_events.detail, {
          clusterArn = local.cluster_arns
          group      = [for name in each.services : local.matcher["service:${name}"]]
        })
      })
      services = merge(
        local.service_events,
        { detail = { clusterArn = local.cluster_arns } },
        # These events name their service by its ARN alone.
        { for key, arns in { resources = local.service_arns[cell] } : key => [for arn in arns : local.matcher[arn]] if !contains(each.services, "*") },
      )
      # An alarm names no service: every cell hears all that are wanted.
      alarms = merge(
        local.alarm_events,
        { for key, names in { detail = var.alarm_names } : key => { alarmName = [for name in names : local.matcher[name]] } if !contains(names, "*") },
      )
      },
      # Who changes rules does not say for which service: every cell hears all of it.
      { for kind, pattern in { calls = jsondecode(file("${path.module}/cloudtrail-pattern.json")) } : kind => pattern if var.cloudtrail },
    )
  }

  event_rules = merge([
    for cell, patterns in local.patterns : {
      for kind, pattern in patterns : "${cell}/${kind}" => { cell = cell, kind = kind, pattern = jsonencode(pattern) }
    }
  ]...)
}

resource "aws_cloudwatch_event_rule" "this" {
  for_each = local.event_rules

  name          = "${local.cells[each.value.cell].name}-${each.value.kind}"
  description   = "Events of ${each.value.kind} for ${local.cells[each.value.cell].name}"
  event_pattern = each.value.pattern

  tags = local.tags

  lifecycle {
    precondition {
      condition     = length(each.value.pattern) <= 2048
      error_message = "The event pattern of ${each.key} has ${length(each.value.pattern)} characters, and EventBridge takes 2048: name fewer clusters, or fewer and shorter prefixes."
    }
  }
}

resource "aws_cloudwatch_event_target" "this" {
  for_each = local.event_rules

  rule      = aws_cloudwatch_event_rule.this[each.key].name
  target_id = "queue"
  arn       = aws_sqs_queue.events[each.value.cell].arn

  # What comes later than this can't trigger anything, and the sweep has read it by then.
  retry_policy {
    maximum_event_age_in_seconds = 3600
    maximum_retry_attempts       = 185
  }

  dead_letter_config {
    arn = aws_sqs_queue.dead_letters[each.value.cell].arn
  }
}
