# What the guardian tells, and the alarms on the guardian itself.

resource "aws_sns_topic" "this" {
  name              = var.name
  kms_master_key_id = var.kms_key_arn

  tags = local.tags
}

resource "aws_sns_topic_policy" "this" {
  arn = aws_sns_topic.this.arn
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        # No condition: AWS supports none in a topic's policy for EventBridge. With one, what the guardian tells may be
        # refused, and nobody is paged.
        Sid       = "OwnEvents"
        Effect    = "Allow"
        Principal = { Service = "events.amazonaws.com" }
        Action    = "sns:Publish"
        Resource  = aws_sns_topic.this.arn
      },
      {
        Sid       = "OwnAlarms"
        Effect    = "Allow"
        Principal = { Service = "cloudwatch.amazonaws.com" }
        Action    = "sns:Publish"
        Resource  = aws_sns_topic.this.arn
        Condition = {
          StringEquals = { "aws:SourceAccount" = local.account }
          ArnLike      = { "aws:SourceArn" = "arn:${local.partition}:cloudwatch:${local.region}:${local.account}:alarm:${var.name}-*" }
        }
      },
      {
        Sid       = "OnlyEncrypted"
        Effect    = "Deny"
        Principal = "*"
        Action    = "sns:Publish"
        Resource  = aws_sns_topic.this.arn
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
    ]
  })
}

resource "aws_sns_topic_subscription" "this" {
  for_each = var.subscriptions

  topic_arn = aws_sns_topic.this.arn
  protocol  = each.value.protocol
  endpoint  = each.value.endpoint
}

resource "aws_cloudwatch_event_rule" "announcements" {
  name           = "${var.name}-announcements"
  description    = "What ${var.name} tells"
  event_bus_name = var.event_bus_name
  event_pattern  = jsonencode({ source = ["taskset-guardian"], "detail-type" = var.notify })

  tags = local.tags
}

resource "aws_cloudwatch_event_target" "announcements" {
  rule           = aws_cloudwatch_event_rule.announcements.name
  event_bus_name = var.event_bus_name
  target_id      = "topic"
  arn            = aws_sns_topic.this.arn
}
