# Events wait here for the worker. A queue of each cell, and one for what could not be delivered or not be read.

resource "aws_sqs_queue" "events" {
  for_each = local.cells

  name                      = each.value.name
  message_retention_seconds = var.queue_retention
  # The worker holds a message for longer by itself while it needs to.
  visibility_timeout_seconds = 30
  receive_wait_time_seconds  = 10

  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead_letters[each.key].arn
    maxReceiveCount     = 5
  })

  sqs_managed_sse_enabled           = var.kms_key_arn == null ? true : null
  kms_master_key_id                 = var.kms_key_arn
  kms_data_key_reuse_period_seconds = var.kms_key_arn == null ? null : 3600

  tags = local.tags
}

resource "aws_sqs_queue" "dead_letters" {
  for_each = local.cells

  name                      = "${each.value.name}-dead-letters"
  message_retention_seconds = 1209600

  sqs_managed_sse_enabled           = var.kms_key_arn == null ? true : null
  kms_master_key_id                 = var.kms_key_arn
  kms_data_key_reuse_period_seconds = var.kms_key_arn == null ? null : 3600

  tags = local.tags
}

resource "aws_sqs_queue_redrive_allow_policy" "dead_letters" {
  for_each = local.cells

  queue_url = aws_sqs_queue.dead_letters[each.key].id
  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = [aws_sqs_queue.events[each.key].arn]
  })
}

locals {
  queues_of = {
    for cell in keys(local.cells) : cell => {
      events       = { url = aws_sqs_queue.events[cell].id, arn = aws_sqs_queue.events[cell].arn }
      dead_letters = { url = aws_sqs_queue.dead_letters[cell].id, arn = aws_sqs_queue.dead_letters[cell].arn }
    }
  }

  queues = merge([
    for cell in keys(local.cells) : {
      "${cell}/events"       = merge({ cell = cell }, local.queues_of[cell].events)
      "${cell}/dead-letters" = merge({ cell = cell }, local.queues_of[cell].dead_letters)
    }
  ]...)
}

# Nobody but EventBridge may send, and EventBridge only for the rules of this cell. Undelivered events go to the dead
# letters by the same rules.
resource "aws_sqs_queue_policy" "this" {
  for_each = local.queues

  queue_url = each.value.url
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "EventsOfTheseRules"
        Effect    = "Allow"
        Principal = { Service = "events.amazonaws.com" }
        Action    = "sqs:SendMessage"
        Resource  = each.value.arn
        Condition = {
          ArnEquals = { "aws:SourceArn" = [for kind in keys(local.patterns[each.value.cell]) : aws_cloudwatch_event_rule.this["${each.value.cell}/${kind}"].arn] }
        }
      },
      {
        Sid       = "NobodyElseSends"
        Effect    = "Deny"
        Principal = "*"
        Action    = "sqs:SendMessage"
        Resource  = each.value.arn
        Condition = {
          ArnNotEqualsIfExists = { "aws:SourceArn" = [for kind in keys(local.patterns[each.value.cell]) : aws_cloudwatch_event_rule.this["${each.value.cell}/${kind}"].arn] }
        }
      },
      {
        Sid       = "OnlyEncrypted"
        Effect    = "Deny"
        Principal = "*"
        Action    = "sqs:*"
        Resource  = each.value.arn
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
    ]
  })
}
