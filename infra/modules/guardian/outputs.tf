output "queue_urls" {
  description = "URL of each cell's queue, by the shard's name; \"all\" when there are no shards. For taskset-guardian doctor --queue-url."
  value       = { for cell, queue in aws_sqs_queue.events : cell => queue.id }
}

output "dead_letter_queue_urls" {
  description = "URL of each cell's dead-letter queue."
  value       = { for cell, queue in aws_sqs_queue.dead_letters : cell => queue.id }
}

output "event_rule_arns" {
  description = "ARNs of the EventBridge rules that send to each cell's queue."
  value       = { for cell, patterns in local.patterns : cell => [for kind in keys(patterns) : aws_cloudwatch_event_rule.this["${cell}/${kind}"].arn] }
}

output "event_patterns" {
  description = "Patterns of the EventBridge rules of each cell, as JSON, by kind."
  value       = { for cell, patterns in local.patterns : cell => { for kind, pattern in patterns : kind => jsonencode(pattern) } }
}

output "table_names" {
  description = "Name of each cell's table; empty without tables."
  value       = { for cell, table in aws_dynamodb_table.journal : cell => table.name }
}

output "worker_role_arns" {
  description = "ARN of each cell's task role."
  value       = { for cell, role in aws_iam_role.worker : cell => role.arn }
}

output "worker_policies" {
  description = "What each cell's task role allows, as JSON."
  value       = { for cell, policy in aws_iam_role_policy.worker : cell => policy.policy }
}

output "people_policies" {
  description = "For those who register, hold, release and roll back, and who run doctor: a policy of each cell, as JSON, to be attached to their roles."
  value       = { for cell, statements in local.people_statements : cell => jsonencode({ Version = "2012-10-17", Statement = statements }) }
}

output "cluster_name" {
  description = "The cluster in which the replicas run."
  value       = aws_ecs_cluster.this.name
}

output "service_names" {
  description = "The ECS service of each cell's replicas."
  value       = { for cell, service in aws_ecs_service.this : cell => service.name }
}

output "security_group_id" {
  description = "Security group of the replicas."
  value       = aws_security_group.this.id
}

output "settings" {
  description = "Environment of each cell's worker: how it was started, and how to start one elsewhere."
  value       = local.settings
}

output "topic_arn" {
  description = "The topic with the guardian's own events, and the alarms on it."
  value       = aws_sns_topic.this.arn
}

output "announcements_alarm_arn" {
  description = "ARN of the alarm on announcements that could not be delivered."
  value       = aws_cloudwatch_metric_alarm.announcements.arn
}

output "alarm_arns" {
  description = "ARNs of the alarms on each cell."
  value = {
    for cell in keys(local.cells) : cell => [
      aws_cloudwatch_metric_alarm.dead[cell].arn,
      aws_cloudwatch_metric_alarm.lag[cell].arn,
      aws_cloudwatch_metric_alarm.dead_letters[cell].arn,
    ]
  }
}
